"""WHERE jobs run: Slurm through submitit, or this machine; and the step that submits what is missing."""

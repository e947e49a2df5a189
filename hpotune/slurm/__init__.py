"""The Slurm client: sbatch text, job states, limits. Each command is called once, never in a loop."""

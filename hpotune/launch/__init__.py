"""Start jobs on Slurm or on this machine, and submit missing ones (follow-up)."""

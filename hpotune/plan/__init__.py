"""HOW MANY jobs and when it ends: pure functions of plain rows. No clock, no disk, no Slurm."""

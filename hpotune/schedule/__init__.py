"""Which jobs are missing and when a study ends: pure functions of plain rows. No clock, no disk, no Slurm."""

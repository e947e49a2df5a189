"""Exercises: a throw-away Slurm, handouts for students, hints on a study, and a class on one page."""

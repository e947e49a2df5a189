"""Checks before a study starts: the study file, the user's code, the machine and the cluster."""

"""Propose the next point with Optuna samplers. Never imports torch."""

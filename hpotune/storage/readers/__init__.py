"""Fast read-only access to trials, without Optuna."""

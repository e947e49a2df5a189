"""Read trials quickly from a storage, without Optuna."""

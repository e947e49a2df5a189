"""Where a study and its trials come from: git, installed packages, machine, content of models and data."""

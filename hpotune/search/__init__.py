"""WHICH point next: Optuna samplers by name, and how a trial of the space is drawn. torch never."""

"""The training loop, its optimizer, checkpoints, losses and checks."""

"""Scores of lm-eval tasks for the model in memory."""

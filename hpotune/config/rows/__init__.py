"""Rows of data files as they are written, and what a prompt reads of them; no torch, no datasets."""

"""A rank process that serves one trial after another: what it keeps between them, and when it must end instead."""

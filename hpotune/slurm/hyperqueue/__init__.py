"""HyperQueue as the place of a study's workers: its command `hq`, the states of tasks, submission."""

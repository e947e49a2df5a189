"""A study's folder on disk: its files, locks, code snapshots, heartbeats and timelines."""

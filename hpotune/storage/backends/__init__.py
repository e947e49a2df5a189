"""The Optuna storage opened safely: SQLite, PostgreSQL or a journal file."""

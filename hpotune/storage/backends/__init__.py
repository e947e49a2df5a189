"""Open an Optuna storage safely: SQLite, PostgreSQL or a journal file."""

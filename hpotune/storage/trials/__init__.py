"""The trial queue: claim a trial, record its outcome, read the rows."""

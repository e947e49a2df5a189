"""The trial queue: claim a trial, record how it ends, requeue the trials of stale workers."""

"""One process at a time: a lock on a file beside what it guards, freed by the system when its holder dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpotune.errors import ClusterError


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Waits for the lock and holds it.

    Raises: ClusterError where the file cannot be made or the file system gives no locks.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise ClusterError(
            f"{lock}: cannot be made ({error.strerror}); free space, or put the study elsewhere"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise ClusterError(
                f"{lock}: this file system gives no locks ({error.strerror}); put the study elsewhere"
            ) from None
        yield

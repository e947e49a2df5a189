"""One process at a time: a lock on a file beside what it guards, freed by the system when its holder dies."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from hpotune.errors import ClusterError, HpotuneError


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Waits for the lock and holds it.

    Raises: ClusterError where the file cannot be made or the file system gives no locks.
    """
    with _opened(lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise _no_locks(lock, error) from None
        yield


@contextmanager
def the_only(lock: Path, *, what: str) -> Iterator[None]:
    """Holds the lock, and leaves in it who does.

    Raises: HpotuneError naming the process that holds it already, ClusterError as `alone`.
    """
    with _opened(lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise HpotuneError(f"{what} is at work already: {holder}; wait for it, or stop it") from None
        except OSError as error:
            raise _no_locks(lock, error) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def _opened(lock: Path) -> TextIO:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        return lock.open("a+", encoding="utf-8")
    except OSError as error:
        raise ClusterError(
            f"{lock}: cannot be made ({error.strerror}); free space, or put the study elsewhere"
        ) from None


def _no_locks(lock: Path, error: OSError) -> ClusterError:
    return ClusterError(
        f"{lock}: this file system gives no locks ({error.strerror}); put the study elsewhere"
    )

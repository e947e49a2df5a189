"""One process at a time: a lock on a file beside what it guards, freed by the system when its holder dies.

flock holds among the nodes of NFS (version 4, or Linux's version 3 with a lock server), GPFS, CephFS, and of Lustre
mounted with `flock`. A mount option such as `nolock` or `localflock` keeps it on one node; `hpotune doctor` names it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from hpotune.errors import ClusterError, HpotuneError

SILENCE_S = 3.0
"""After so long, a process that waits for another one says so."""


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Waits for the lock and holds it.

    Raises: ClusterError where the file cannot be made or the file system gives no locks.
    """
    with opened(lock) as file:
        wait_for(file, lock)
        yield


@contextmanager
def the_only(lock: Path, *, what: str) -> Iterator[None]:
    """Holds the lock, and leaves in it who does.

    Raises: HpotuneError naming the process that holds it already, ClusterError as `alone`.
    """
    with opened(lock) as file:
        if not _taken(file, lock):
            raise HpotuneError(f"{what} is at work already: {_holder(file)}; wait for it, or stop it")
        write(file, this_process())
        yield


def this_process() -> str:
    """`process 12 on node1`."""
    return f"process {os.getpid()} on {platform.node()}"


def opened(lock: Path, *, parents: bool = True) -> FileIO:
    """The lock's file, made where it is missing; read-only where it is another user's. `parents`: so are folders.

    Raises: FileNotFoundError where its folder is missing, ClusterError where it cannot be made.
    """
    try:
        if parents:
            lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            return FileIO(lock, "r+", opener=_open)
        except PermissionError:
            return FileIO(lock, "r", opener=_open)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ClusterError(f"{lock}: is a symbolic link, which a lock must not be; remove it") from None
        raise ClusterError(
            f"{lock}: cannot be made ({error.strerror}); free space, or put the study elsewhere"
        ) from None


def _open(path: str, flags: int) -> int:
    """Never through a link: the lock would be that of another file."""
    made = os.O_CREAT if flags & os.O_RDWR else 0
    return os.open(path, flags | made | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)


def read(file: FileIO) -> str:
    """What its holder wrote into the lock."""
    return os.pread(file.fileno(), 4096, 0).decode(errors="replace")


def write(file: FileIO, text: str) -> None:
    """Writes into the lock that we hold; nothing where it is another user's."""
    if file.writable():
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), text.encode(), 0)
        os.fsync(file.fileno())


def wait_for(file: FileIO, lock: Path, *, what: str = "") -> None:
    """Waits until the lock is ours. `what` the holder does: after SILENCE_S it is said who is waited for.

    It asks again and again: Linux's NFS client sleeps up to 30 s between its own questions for a lock.
    Raises: ClusterError where the file system gives no locks.
    """
    since, pause_s = time.monotonic(), 0.01
    while not _taken(file, lock):
        if what and time.monotonic() - since > SILENCE_S:
            print(f"waiting for {_holder(file)}, which {what}", file=sys.stderr, flush=True)  # noqa: T201
            what = ""
        time.sleep(pause_s * random.uniform(0.5, 1))
        pause_s = min(1.5 * pause_s, 0.5)


def _taken(file: FileIO, lock: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ClusterError(
            f"{lock}: this file system gives no locks ({error.strerror}); put the study elsewhere"
        ) from None
    return True


def _holder(file: FileIO) -> str:
    """Who holds the lock: its first line."""
    return read(file).partition("\n")[0].strip() or "another process"

"""Locks between processes: flock on a file, released by the kernel when its holder ends.

flock works between the nodes of NFS (version 4, or Linux's version 3 with a lock server), GPFS, CephFS, and of Lustre
mounted with `flock`. On sshfs and other file systems in user space, and with mount options such as `nolock` and
`localflock`, it stays on one node: there a holder also creates a file beside the lock (holder_file.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import random
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from hpotune.config.text.outside_text import console_text
from hpotune.errors import HpotuneError, StoreError
from hpotune.workspace import holder_file
from hpotune.workspace.holder_file import HolderFile
from hpotune.workspace.mounts import flock_stays_here

REPORT_AFTER_S = 3.0
"""How long a process waits for a lock before it prints what it waits for."""


class LockFile(FileIO):
    """The open file of a lock. Closing it releases the lock."""

    holder: HolderFile | None = None
    """Where flock stays on this node: the file beside the lock."""
    _is_holder = False

    def try_lock(self) -> bool:
        """Take the lock, without waiting; False where another process holds it.

        Raises: OSError where the file system has no locks.
        """
        try:
            fcntl.flock(self, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if self.holder is not None and not self.holder.take():
            fcntl.flock(self, fcntl.LOCK_UN)
            return False
        self._is_holder = self.holder is not None
        return True

    def close(self) -> None:
        """Release the lock, and close the file."""
        if self.holder is not None and self._is_holder:
            self._is_holder = False
            self.holder.release()
        super().close()


@contextmanager
def exclusive_lock(lock: Path) -> Iterator[None]:
    """Wait for the lock, and hold it while the body runs.

    Raises: StoreError where the file cannot be created or the file system has no locks.
    """
    with open_lock_file(lock) as file:
        wait_for_lock(file, lock)
        yield


@contextmanager
def try_exclusive_lock(lock: Path, *, what: str) -> Iterator[None]:
    """Hold the lock while the body runs, without waiting. `what`: the subject of the error message.

    Only where flock stays on one node it may wait until the holder has renewed its file, at most GRACE_S.

    Raises: HpotuneError naming the process that holds it, StoreError as `exclusive_lock`.
    """
    with open_lock_file(lock) as file:
        if not _try_until_known(file, lock):
            raise HpotuneError(f"{what} is already running: {_holder(file)}; wait for it, or stop it")
        write_lock(file, this_process())
        yield


def this_process() -> str:
    """`process 12 on node1`."""
    return f"process {os.getpid()} on {platform.node()}"


def open_lock_file(lock: Path, *, parents: bool = True) -> LockFile:
    """Open the lock's file, created if missing, read-only if it is another user's. `parents`: create its folder.

    Raises: FileNotFoundError where its folder is missing and not created, StoreError where it cannot be created, or
        where a link or anything but a plain file of one name lies there.
    """
    try:
        if parents:
            lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = LockFile(lock, "r+", opener=_open)
        except PermissionError:
            file = LockFile(lock, "r", opener=_open)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not parents:
            raise
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR) or lock.is_symlink():
            raise _no_plain_file(lock) from None
        raise StoreError(
            f"{lock}: cannot be created ({error.strerror}); free space, or use another folder for the study"
        ) from None
    if not _is_plain(file):
        file.close()
        raise _no_plain_file(lock)
    if flock_stays_here(lock.parent):
        file.holder = HolderFile(lock)
    return file


def _no_plain_file(lock: Path) -> StoreError:
    kind = "a symbolic link" if lock.is_symlink() else "no plain file, or has a second name"
    return StoreError(f"{lock}: is {kind}; a lock must be a plain file of its own: remove it")


def _open(path: str, flags: int) -> int:
    """Open without following a link, which would lock another file, and without waiting for a FIFO's other end."""
    made = os.O_CREAT if flags & os.O_RDWR else 0
    return os.open(path, flags | made | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _is_plain(file: FileIO) -> bool:
    """Whether it is a regular file of one name: writing to a hard link would overwrite another file."""
    found = os.fstat(file.fileno())
    return stat.S_ISREG(found.st_mode) and found.st_nlink <= 1


def read_lock(file: FileIO) -> str:
    """The text that the holder wrote into the lock's file."""
    return os.pread(file.fileno(), 4096, 0).decode(errors="replace")


def write_lock(file: FileIO, text: str) -> None:
    """Write into the file of a lock that this process holds; nothing where it is another user's."""
    if file.writable():
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), text.encode(), 0)
        os.fsync(file.fileno())


def wait_for_lock(file: LockFile, lock: Path, *, what: str = "") -> None:
    """Wait until this process holds the lock. `what`: what the holder does, printed with its name after REPORT_AFTER_S.

    It polls: Linux's NFS client sleeps up to 30 s between its own requests for a lock.
    Raises: StoreError where the file system has no locks.
    """
    since, pause_s = time.monotonic(), 0.01
    while not _try_lock(file, lock):
        if what and time.monotonic() - since > REPORT_AFTER_S:
            print(f"waiting for {_holder(file)}, which {what}", file=sys.stderr, flush=True)  # noqa: T201
            what = ""
        time.sleep(pause_s * random.uniform(0.5, 1))
        pause_s = min(1.5 * pause_s, 0.5)


def _try_lock(file: LockFile, lock: Path) -> bool:
    try:
        return file.try_lock()
    except OSError as error:
        raise StoreError(
            f"{lock}: this file system has no locks ({error.strerror}); use a folder on another one for the study"
        ) from None


def _try_until_known(file: LockFile, lock: Path) -> bool:
    """Whether the lock was taken; tries again while the file of a holder elsewhere may be what a killed one left."""
    until = time.monotonic() + holder_file.GRACE_S + holder_file.RENEW_S
    reported = False
    while not _try_lock(file, lock):
        if file.holder is None or not file.holder.may_be_left or time.monotonic() > until:
            return False
        if not reported:
            text = (
                f"{lock}: waiting up to {holder_file.GRACE_S:g} s to see whether {_holder(file)} still runs"
            )
            print(text, file=sys.stderr, flush=True)  # noqa: T201
            reported = True
        time.sleep(min(0.5, holder_file.GRACE_S / 10))
    return True


def _holder(file: FileIO) -> str:
    """Who holds the lock: its first line."""
    return console_text(read_lock(file).partition("\n")[0].strip(), one_line=True) or "another process"

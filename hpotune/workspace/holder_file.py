"""A lock by a file that its holder creates, for file systems on which flock stays on one node; used with flock.

The file's creation is exclusive on the server, so that one process of all nodes creates it. Its holder renews its text
and removes it. What a killed holder left is removed by those who wait: at once if they see that its process has ended,
else when the text has not changed for GRACE_S.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

GRACE_S = 120.0
"""How long the file of a process on another node may stay as it is: longer than a server is away for a restart."""
RENEW_S = 5.0
MAX_REFUSALS = 20
"""How often in a row EPERM is taken as "it exists": sshfs says so where another node creates it at the same moment."""


class ExclusiveFile:
    """A file that one process of all nodes can create."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._refusals = 0

    def create(self, text: str) -> bool:
        """Create the file with this text; False where it exists.

        Raises: OSError where it cannot be created or written; then there is none of this process.
        """
        try:
            file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            self._refusals = 0
            return False
        except PermissionError as error:
            self._refusals += 1
            if error.errno != errno.EPERM or self._refusals > MAX_REFUSALS:
                raise
            return False
        self._refusals = 0
        try:
            os.write(file, text.encode())
        except OSError:
            self._path.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        return True


def put_back(aside: Path, path: Path) -> None:
    """Return a lock file that was moved aside to its path, unless another process has created one there meanwhile.

    By a hard link; where the file system has none (CIFS, exFAT, many FUSE types), by an exclusive copy.
    Raises: OSError where neither can be made.
    """
    try:
        os.link(aside, path, follow_symlinks=False)
    except FileExistsError:
        return
    except OSError:
        if os.path.islink(aside):
            with suppress(FileExistsError):
                os.symlink(os.readlink(aside), path)
            return
        ExclusiveFile(path).create(aside.read_text(errors="surrogateescape"))


class HolderFile:
    """The file beside a lock, `LOCK.holder`, as one process sees it."""

    def __init__(self, lock: Path) -> None:
        self.path = lock.with_name(f"{lock.name}.holder")
        self._mine = f"{machine_id()} {os.getpid()} {uuid.uuid4()}"
        self._seen, self._since = "", 0.0
        """The text of another process's file, and when it was seen first (on this process's own clock)."""
        self.may_be_left = False
        """Whether the file has been there unchanged since it was seen: a killed process may have left it."""
        self._file = ExclusiveFile(self.path)
        self._released = threading.Event()

    def take(self) -> bool:
        """Create the file, after the removal of one that nobody holds; False where another process holds it.

        Raises: OSError where it cannot be created.
        """
        for _ in range(2):
            if self._file.create(f"{self._mine} 0"):
                threading.Thread(target=self._renew, daemon=True).start()
                return True
            holder = _text(self.path)
            if holder != self._seen:
                self.may_be_left = bool(holder) and not self._seen
                self._seen, self._since = holder, time.monotonic()
            if not holder or not (has_ended(holder) or time.monotonic() - self._since > GRACE_S):
                return False
            self._break(holder)
        return False

    def release(self) -> None:
        """Remove the file; nothing happens where another process has broken the lock."""
        self._released.set()
        if _text(self.path).startswith(self._mine):
            with suppress(OSError):
                self.path.unlink()

    def _renew(self) -> None:
        """Change the text every RENEW_S until the file is released, or is another process's."""
        count = 0
        while not self._released.wait(RENEW_S):
            count += 1
            with suppress(OSError):  # a server that is away: the others are as patient
                if not _text(self.path).startswith(self._mine):
                    return
                file = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(file, f"{self._mine} {count}".encode())
                finally:
                    os.close(file)

    def _break(self, holder: str) -> None:
        """Remove the file with this text and no other: two processes may try at once."""
        aside = self.path.with_name(f"{self.path.name}.{uuid.uuid4()}")
        with suppress(OSError):
            self.path.rename(aside)
            try:
                if _text(aside) != holder:
                    put_back(aside, self.path)
            finally:
                aside.unlink()


def _text(path: Path) -> str:
    """The text of the file; a word about it where it has none; empty where there is no file."""
    try:
        found = path.lstat()
        with suppress(OSError):
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if text := os.read(file, 4096).decode(errors="replace"):
                    return text
            finally:
                os.close(file)
        return f"empty {found.st_ino}"
    except OSError:
        return ""


def has_ended(holder: str) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    machine, _, process = holder.partition(" ")
    return machine == machine_id() and not Path("/proc", process.partition(" ")[0]).exists()


@cache
def machine_id() -> str:
    """An id of the process namespace: this boot of this kernel, in this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"unknown/{uuid.uuid4()}"

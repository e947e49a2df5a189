"""The lock of a journal file: its holder's name in a file beside it. A holder that has ended is noticed at once."""

from __future__ import annotations

import os
import random
import stat
import time
import uuid
from contextlib import suppress
from pathlib import Path

from optuna.storages.journal._file import BaseJournalFileLock

from hpotune.errors import StoreError
from hpotune.workspace.holder_file import ExclusiveFile, has_ended, machine_id, put_back
from hpotune.workspace.timeline import log

GRACE_S = 30
"""How long another machine's process may hold the lock before it is broken; normally it takes milliseconds."""
REPORT_AFTER_S = 5
"""How long a process waits for the lock before it prints that it waits."""


class Lock(BaseJournalFileLock):
    """A journal's lock with its holder's name: a holder that has ended on this machine is noticed at once.

    With Optuna's lock all processes wait 30 s for such a holder; then two of them may break each other's lock, and the
    one whose lock is gone fails. The lock file is the same: Optuna's programs and this one wait for each other.
    """

    def __init__(self, path: str) -> None:
        self._path = f"{path}.lock"
        self._mine = ""
        self._file = ExclusiveFile(Path(self._path))

    def acquire(self) -> bool:
        """Wait for the lock and take it.

        Raises: StoreError where its path is no file, or where an expired lock cannot be removed.
        """
        self._mine = f"{machine_id()} {os.getpid()} {uuid.uuid4()}"
        pause_s, seen, since, said = 0.001, "", time.monotonic(), False
        while not self._file.create(self._mine):
            holder = _holder(self._path)
            if holder != seen:
                seen, since = holder, time.monotonic()
            waited_s = time.monotonic() - since
            if holder and (has_ended(holder) or waited_s > GRACE_S):
                self._break(holder)
                continue
            if not said and waited_s > REPORT_AFTER_S:
                said = True
                log(f"waiting for {self._path}, which another process holds; after {GRACE_S} s it is broken")
            time.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(2 * pause_s, 0.25)
        return True

    def release(self) -> None:
        """Release the lock; nothing happens if another process has broken it."""
        if _holder(self._path) == self._mine:
            with suppress(FileNotFoundError):
                os.unlink(self._path)

    def _break(self, holder: str) -> None:
        """Remove the lock of this holder and of no other: two processes may try at once."""
        aside = f"{self._path}.{uuid.uuid4()}"
        try:
            os.rename(self._path, aside)
            try:
                if _holder(aside) != holder:
                    put_back(Path(aside), Path(self._path))
            finally:
                os.unlink(aside)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StoreError(
                f"{self._path}: is the lock of a process that has ended or hangs, and cannot be removed "
                f"({error.strerror}); remove it once no worker of the study runs"
            ) from error


def _holder(path: str) -> str:
    """A text that identifies the current hold of a lock; empty where nobody holds it.

    Raises: StoreError where a folder, a pipe or a device lies at the path: nobody will ever release that.
    """
    try:
        found = os.lstat(path)
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
            raise StoreError(f"{path}: is {what}, and the journal's lock must be a file; remove it")
        name = ""
        with suppress(OSError):
            name = "" if stat.S_ISLNK(found.st_mode) else Path(path).read_text(errors="replace")
        return name or f"{found.st_ino} {found.st_mtime_ns}"
    except OSError:
        return ""

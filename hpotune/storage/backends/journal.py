"""Optuna's journal file, safe against workers that are killed while they write and against full disks."""

from __future__ import annotations

import json
import os
import random
import stat
import time
import uuid
from collections.abc import Container, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import FrozenTrial, TrialState

GRACE_S = 30
"""How long another machine's process may hold the lock before it is broken; normally it takes milliseconds."""


def journal(path: str) -> JournalStorage:
    """The journal in a file; an empty one is created where there is none."""
    return _Journal(_File(path, lock_obj=Lock(path)))


class _Journal(JournalStorage):
    """A journal in which a claim differs from an older claim of the same trial.

    Optuna grants WAITING -> RUNNING to the worker that its replay names as the trial's owner, and keeps old owners: of
    two workers that claim a released trial, the one that had it before would be granted it as well as the other.
    """

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        if state == TrialState.RUNNING:
            owned = self._replay_result._worker_id_to_owned_trial_id
            owned.pop(self._replay_result.worker_id, None)
        return super().set_trial_state_values(trial_id, state, values)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if deepcopy or states is not None or study_id not in self._replay_result._studies:
            return super().get_all_trials(study_id, deepcopy, states)
        with self._thread_lock:  # a worker asks three times a trial: a quarter of Optuna's time
            self._sync_with_backend()
            found = self._replay_result
            return [*map(found._trials.__getitem__, found._study_id_to_trial_ids[study_id])]


class _File(JournalFileBackend):
    """Appends whole lines or nothing: after half a line, of a killed writer or a full disk, the file is unreadable."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        data = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._lock.acquire()
        try:
            with Path(self._file_path).open("a+b", buffering=0) as file:
                end = _cut_incomplete_line(file.fileno())
                written = 0
                try:
                    while written < len(data):
                        written += file.write(data[written:])
                except OSError:
                    os.ftruncate(file.fileno(), end)
                    raise
                os.fsync(file.fileno())
        finally:
            self._lock.release()


def _cut_incomplete_line(file: int) -> int:
    """Cut off an incomplete last line; returns the size of the file."""
    size = end = os.fstat(file).st_size
    block = b"\n" if not size else os.pread(file, 1, size - 1)
    while end and not block.endswith(b"\n"):
        start = max(0, end - 4096)
        block = os.pread(file, end - start, start)
        block = block[: block.rfind(b"\n") + 1]
        end = start + len(block)
    if end < size:
        os.ftruncate(file, end)
    return end


class Lock(BaseJournalFileLock):
    """A journal's lock with its holder's name: a holder that has ended on this machine is noticed at once.

    With Optuna's lock all processes wait 30 s for such a holder; then two of them may break each other's lock, and the
    one whose lock is gone fails. The lock file is the same: Optuna's programs and this one wait for each other.
    """

    def __init__(self, path: str) -> None:
        self._path = f"{path}.lock"
        self._mine = ""

    def acquire(self) -> bool:
        """Wait for the lock and take it."""
        self._mine = f"{_machine()} {os.getpid()} {uuid.uuid4()}"
        pause_s, seen, since = 0.001, "", 0.0
        while not self._take():
            holder = _holder(self._path)
            if holder != seen:
                seen, since = holder, time.monotonic()
            if holder and (_has_ended(holder) or time.monotonic() - since > GRACE_S):
                self._break(holder)
                continue
            time.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(2 * pause_s, 0.25)
        return True

    def release(self) -> None:
        """Release the lock; nothing happens if another process has broken it."""
        if _holder(self._path) == self._mine:
            with suppress(FileNotFoundError):
                os.unlink(self._path)

    def _take(self) -> bool:
        try:
            file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        try:
            os.write(file, self._mine.encode())
        except OSError:
            os.unlink(self._path)
            raise
        finally:
            os.close(file)
        return True

    def _break(self, holder: str) -> None:
        """Remove the lock of this holder and of no other: two processes may try at once."""
        aside = f"{self._path}.{uuid.uuid4()}"
        with suppress(FileNotFoundError):
            os.rename(self._path, aside)
            if _holder(aside) != holder:
                with suppress(FileExistsError):
                    os.link(aside, self._path, follow_symlinks=False)
            os.unlink(aside)


def _holder(path: str) -> str:
    """A text that identifies the current hold of a lock; empty where nobody holds it."""
    with suppress(OSError):
        found = os.lstat(path)
        name = "" if stat.S_ISLNK(found.st_mode) else Path(path).read_text()
        return name or f"{found.st_ino} {found.st_mtime_ns}"
    return ""


def _has_ended(holder: str) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    machine, _, process = holder.partition(" ")
    return machine == _machine() and not Path("/proc", process.partition(" ")[0]).exists()


@cache
def _machine() -> str:
    """An id of the process namespace: this boot of this kernel, in this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"unknown/{uuid.uuid4()}"

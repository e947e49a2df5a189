"""Optuna's journal file, made to outlast workers that are killed while they write, and disks that are full."""

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
"""How long one hold of the lock may last whose holder cannot be seen from here; ordinary ones last milliseconds."""


def journal(path: str) -> JournalStorage:
    """The journal in a file; an empty one is made where there is none."""
    return _Journal(_File(path, lock_obj=Lock(path)))


class _Journal(JournalStorage):
    """A journal whose take is told from an older take of the same trial.

    Optuna grants WAITING -> RUNNING to whoever its replay names as the trial's owner, and forgets no owner: of two
    takers of a trial that was put back, the one that had held it before would be granted it beside the other.
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
        with self._thread_lock:  # what a worker asks three times a trial, at a quarter of the time
            self._sync_with_backend()
            found = self._replay_result
            return [*map(found._trials.__getitem__, found._study_id_to_trial_ids[study_id])]


class _File(JournalFileBackend):
    """Appends whole lines or nothing: after half a line, that of a dead writer or a full disk, nobody could read on."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        data = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._lock.acquire()
        try:
            with Path(self._file_path).open("a+b", buffering=0) as file:
                end = _whole_lines(file.fileno())
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


def _whole_lines(file: int) -> int:
    """The size of a file whose half last line, if there is one, is cut off now."""
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
    """A journal's lock, which names its holder: one that died on this machine is seen at once.

    Optuna's makes everybody wait 30 s for a dead holder; then two that waited may break each other's lock, and the one
    that finds its own gone gives up. The file is the same: Optuna's programs and this one wait for each other.
    """

    def __init__(self, path: str) -> None:
        self._path = f"{path}.lock"
        self._mine = ""

    def acquire(self) -> bool:
        """Returns when it is ours."""
        self._mine = f"{_machine()} {os.getpid()} {uuid.uuid4()}"
        pause_s, seen, since = 0.001, "", 0.0
        while not self._take():
            holder = _holder(self._path)
            if holder != seen:
                seen, since = holder, time.monotonic()
            if holder and (_dead(holder) or time.monotonic() - since > GRACE_S):
                self._break(holder)
                continue
            time.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(2 * pause_s, 0.25)
        return True

    def release(self) -> None:
        """Lets the next one in; nothing where somebody took us for dead."""
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
        """Removes the lock of a dead holder and no other's: two may want to at once."""
        aside = f"{self._path}.{uuid.uuid4()}"
        with suppress(FileNotFoundError):
            os.rename(self._path, aside)
            if _holder(aside) != holder:
                with suppress(FileExistsError):
                    os.link(aside, self._path, follow_symlinks=False)
            os.unlink(aside)


def _holder(path: str) -> str:
    """What no other hold of a lock has in common with this one; empty where nobody holds it."""
    with suppress(OSError):
        found = os.lstat(path)
        told = "" if stat.S_ISLNK(found.st_mode) else Path(path).read_text()
        return told or f"{found.st_ino} {found.st_mtime_ns}"
    return ""


def _dead(holder: str) -> bool:
    """Whether the holder was a process of this machine, and is none any more."""
    machine, _, process = holder.partition(" ")
    return machine == _machine() and not Path("/proc", process.partition(" ")[0]).exists()


@cache
def _machine() -> str:
    """Where process numbers mean the same: this boot of this kernel, seen from this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"unknown/{uuid.uuid4()}"

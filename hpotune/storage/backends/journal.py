"""Optuna's journal file, safe against workers that are killed while they write and against full disks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timezone
from pathlib import Path
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial, TrialState

from hpotune.errors import StoreError
from hpotune.search.base.trial_update import TrialUpdate
from hpotune.storage.backends.journal_lock import Lock

BLOCK = 4096
"""Bytes of the file's end that are looked at before a record is appended."""
_START = b'{"op_code":'
"""How a record begins, as Optuna writes it."""
_TRIAL, _STUDY = ("trial_id",), ("study_id",)
_FIELDS: Mapping[int, Sequence[str]] = {
    0: ("study_name", "directions"), 1: _STUDY, 2: (*_STUDY, "user_attr"), 3: (*_STUDY, "system_attr"),
    4: (*_STUDY, "datetime_start"),
    5: (*_TRIAL, "param_name", "param_value_internal", "distribution"), 6: (*_TRIAL, "state", "values"),
    7: (*_TRIAL, "step", "intermediate_value"), 8: (*_TRIAL, "user_attr"), 9: (*_TRIAL, "system_attr"), 10: (),
}  # fmt: skip
"""By Optuna's number of an operation (optuna/storages/journal/_storage.py), the keys that its record needs."""


def journal(path: str) -> JournalStorage:
    """The journal in a file; an empty one is created where there is none."""
    return _Journal(_File(path, lock_obj=Lock(path)), path)


class _Journal(JournalStorage):
    """A journal in which a claim differs from an older claim of the same trial.

    Optuna grants WAITING -> RUNNING to the worker that its replay names as the trial's owner, and keeps old owners: of
    two workers that claim a released trial, the one that had it before would be granted it as well as the other.
    """

    def __init__(self, backend: _File, path: str) -> None:
        self._file, self._file_path = backend, path
        self._ordered: dict[int, list[FrozenTrial]] = {}
        """By study: its trials by number."""
        self._unsigned: dict[int, tuple[TrialUpdate, FrozenTrial]] = {}
        """The last claim, by trial, until its second append (the worker's name) is written: the call is repeated."""
        super().__init__(backend)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        if state == TrialState.RUNNING:
            owned = self._replay_result._worker_id_to_owned_trial_id
            owned.pop(self._replay_result.worker_id, None)
        return super().set_trial_state_values(trial_id, state, values)

    def _sync_with_backend(self) -> None:
        replay, last = self._replay_result, dict[str, Any]()

        def records() -> Iterator[dict[str, Any]]:
            nonlocal last
            for log in self._backend.read_logs(replay.log_number_read):
                last = log
                yield log

        try:
            replay.apply_logs(records())
        except (LookupError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
            if last.get("worker_id") == replay.worker_id:  # Optuna's answer to what this process asked for
                raise
            reason = f"{type(error).__name__}: {error}"
            raise StoreError(damaged_line(self._file_path, replay.log_number_read, reason)) from error

    def write_update(self, trial_id: int, update: TrialUpdate) -> bool:
        """Write an update by one append; see search.base.trial_update.write_update. RUNNING goes first, by itself.

        The start of a claim is kept until the claim is complete: the same update may be written again after an error.
        Raises: UpdateFinishedTrialError where it expects the trial otherwise; StoreError for a damaged journal.
        """
        if update.state == TrialState.RUNNING:
            claimed = self._unsigned.get(trial_id)
            if claimed is None or claimed[0] is not update:
                if not self.set_trial_state_values(trial_id, TrialState.RUNNING):
                    return False
                claimed = update, self._replay_result.get_trial(trial_id)
            self._unsigned = {trial_id: claimed}
            update = replace(update, expected=claimed[1])
        logs = update_logs(trial_id, update)
        written = not logs or self._append(logs, may=lambda: self._may_write(trial_id, update))
        self._unsigned.clear()
        return written or update.was_written(self.get_trial(trial_id))

    def _may_write(self, trial_id: int, update: TrialUpdate) -> bool:
        """Whether the trial is as the update expects; called while no other process can append."""
        if update.expected is None:
            return True
        self._sync_with_backend()
        now = self._replay_result.get_trial(trial_id)
        if now.state.is_finished():
            raise UpdateFinishedTrialError(f"Trial#{now.number} has already finished and can not be updated.")
        return update.is_allowed(now)

    def create_waiting(self, study_id: int, attrs: Sequence[Mapping[str, Any]]) -> None:
        """Append WAITING trials with these user attributes, by one append."""
        head = {"op_code": JournalOperation.CREATE_TRIAL, "study_id": study_id, "state": TrialState.WAITING}
        rest = {"datetime_start": None, "value": None, "values": None}
        self._append([{**head, **rest, "user_attrs": dict(each)} for each in attrs])

    def _append(self, logs: Sequence[Mapping[str, Any]], *, may: Callable[[], bool] = lambda: True) -> bool:
        """Append operations and replay them. Returns False, with nothing written, where `may` does.

        Raises: the first error of the operations, when all are replayed.
        """
        with self._thread_lock:
            worker = self._replay_result.worker_id
            if not self._file.append_if([{**log, "worker_id": worker} for log in logs], may=may):
                return False
            first: Exception | None = None
            while True:
                read = self._replay_result.log_number_read
                try:
                    self._sync_with_backend()
                    break
                except (UpdateFinishedTrialError, KeyError, ValueError) as error:
                    first = first or error
                    if self._replay_result.log_number_read == read:
                        break  # the file is damaged; else the operations behind this one are still to be read
        if first is not None:
            raise first
        return True

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if deepcopy or states is not None or study_id not in self._replay_result._studies:
            return super().get_all_trials(study_id, deepcopy, states)
        with (
            self._thread_lock
        ):  # a worker asks four times a trial: all trials are gone through at the first look only
            self._sync_with_backend()
            replay = self._replay_result
            trials = replay._trials
            if not isinstance(trials, _ChangedTrials):
                trials = replay._trials = _ChangedTrials(trials)
                self._ordered.clear()
            for id_ in sorted(trials.changed):
                ordered = self._ordered.setdefault(replay._trial_id_to_study_id[id_], [])
                trial = trials[id_]
                ordered[trial.number : trial.number + 1] = [trial]  # numbers have no gaps
            trials.changed.clear()
            return list(self._ordered.get(study_id, ()))


class _ChangedTrials(dict[int, FrozenTrial]):
    """Trials by id; remembers which were set."""

    def __init__(self, trials: Mapping[int, FrozenTrial]) -> None:
        super().__init__(trials)
        self.changed = set(trials)

    def __setitem__(self, id_: int, trial: FrozenTrial) -> None:
        super().__setitem__(id_, trial)
        self.changed.add(id_)


def update_logs(trial_id: int, update: TrialUpdate) -> list[dict[str, Any]]:
    """The operations of an update, without that of RUNNING: the state comes last."""
    operations: list[tuple[JournalOperation, dict[str, Any]]] = []
    for name, (value, distribution) in update.params.items():
        text = distribution_to_json(distribution)
        param = {"param_name": name, "param_value_internal": value, "distribution": text}
        operations.append((JournalOperation.SET_TRIAL_PARAM, param))
    for key, attr in update.system_attrs.items():
        operations.append((JournalOperation.SET_TRIAL_SYSTEM_ATTR, {"system_attr": {key: attr}}))
    for step, number in update.intermediate_values.items():
        reached = {"step": step, "intermediate_value": number}
        operations.append((JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE, reached))
    for key, attr in update.user_attrs.items():
        operations.append((JournalOperation.SET_TRIAL_USER_ATTR, {"user_attr": {key: attr}}))
    if update.state is not None and update.state != TrialState.RUNNING:
        ended: dict[str, Any] = {"state": update.state, "values": update.values}
        if update.state.is_finished():
            at = update.at.astimezone(timezone.utc)
            ended["datetime_complete"] = at.isoformat(timespec="microseconds")
        operations.append((JournalOperation.SET_TRIAL_STATE_VALUES, ended))
    return [{"op_code": code, "trial_id": trial_id, **fields} for code, fields in operations]


class _File(JournalFileBackend):
    """Appends whole lines or nothing: after half a line, of a killed writer or a full disk, the file is unreadable.

    Optuna tolerates a last line that is no record; the next record after it makes the file unreadable for good. Here
    reading and writing follow one rule: an incomplete last line is left out, and cut before the next record; a whole
    line that is no record is refused wherever it stands, and nothing is written.
    """

    def __init__(self, path: str, *, lock_obj: BaseJournalFileLock) -> None:
        super().__init__(path, lock_obj=lock_obj)
        self._position = (0, 0)
        """Lines that were read, and the offset of the next one."""

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """The records from this number on.

        Raises: StoreError for a whole line that is no record.
        """
        number, offset = self._position if self._position[0] <= log_number_from else (0, 0)
        with Path(self._file_path).open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written, or its writer was killed
                    return
                log = _record(self._file_path, line, number + 1) if number >= log_number_from else {}
                number, offset = number + 1, offset + len(line)
                self._position = (number, offset)
                if log:
                    yield log

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.append_if(logs, may=lambda: True)

    def append_if(self, logs: Sequence[Mapping[str, Any]], *, may: Callable[[], bool]) -> bool:
        """Append records unless `may`, called under the lock, returns False; returns what it did."""
        data = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._lock.acquire()
        try:
            if not may():
                return False
            with Path(self._file_path).open("a+b", buffering=0) as file:
                end = _cut_incomplete_line(file.fileno(), self._file_path)
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
        return True


def _cut_incomplete_line(file: int, path: str) -> int:
    """Cut off an incomplete last line; returns the size of the file.

    Raises: StoreError where the file is no journal, or its last whole line no record: nothing is written then.
    """
    size = end = os.fstat(file).st_size
    block = os.pread(file, BLOCK, max(0, size - BLOCK))
    while end and not block.endswith(b"\n"):
        start = max(0, end - BLOCK)
        block = os.pread(file, end - start, start)
        block = block[: block.rfind(b"\n") + 1]
        end = start + len(block)
    if not end and size and not is_record_start(os.pread(file, BLOCK, 0)):
        raise StoreError(f"{path}: is no journal of Optuna and is left as it is; name another file")
    if end:
        last = block[:-1].rpartition(b"\n")
        if not last[2].endswith(b"}") or (last[1] and not last[2].startswith(_START)):
            shown = ascii(last[2][:30].decode(errors="replace"))
            raise StoreError(damaged_line(path, _lines(path), shown))
    if end < size:
        os.ftruncate(file, end)
    return end


def _lines(path: str) -> int:
    """The number of whole lines in a file."""
    with Path(path).open("rb") as file:
        return sum(line.endswith(b"\n") for line in file)


def is_record_start(start: bytes) -> bool:
    """Whether a file that begins with these bytes may be a journal: its first record, or the first part of it."""
    line, end, _ = start.partition(b"\n")
    if end:
        return _parsed(line) is not None
    mark = _START + b'0,"worker_id":"'
    return bool(line) and (line.startswith(mark) or mark.startswith(line))


def _record(path: str, line: bytes, number: int) -> dict[str, Any]:
    """The record in a line of the file.

    Raises: StoreError where the line is none, or one of a newer Optuna.
    """
    log = _parsed(line)
    if log is None:
        raise StoreError(damaged_line(path, number, ascii(line[:30].decode(errors="replace"))))
    needed = _FIELDS.get(log["op_code"])
    if needed is None:
        raise StoreError(
            f"{path}: line {number} is a record of a newer Optuna (operation {log['op_code']}); "
            "`pip install -U optuna`, or name another file"
        )
    if missing := [key for key in needed if key not in log]:
        raise StoreError(damaged_line(path, number, f"without {missing[0]}"))
    return log


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The line as a record; None where it is none."""
    try:
        log = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    known = isinstance(log, dict) and type(log.get("op_code")) is int and "worker_id" in log
    return log if known else None


def damaged_line(path: str, number: int, reason: str) -> str:
    """One line about a line that is no record, and the next step."""
    return (
        f"{path}: line {number} is no record of Optuna's journal ({reason}); restore the "
        f"file, or remove that line after a backup: `sed -i {number}d {path}`"
    )

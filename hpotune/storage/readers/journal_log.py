"""Reads trials from Optuna's journal file by replaying its operations, without Optuna. Writes nothing.

Same rules as optuna/storages/journal/_storage.py: operations after a trial's end, or of a trial that does not exist,
are ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpotune.storage.readers.sql_tables import (
    NoSuchStudy,
    StudyRecord,
    Unreadable,
    external_value,
    kind_of,
    unix,
)
from hpotune.storage.readers.trial_record import TrialRecord

_CREATE_STUDY, _DELETE_STUDY, _STUDY_ATTR, _STUDY_SYSTEM = 0, 1, 2, 3
_CREATE_TRIAL, _PARAM, _STATE, _INTERMEDIATE, _ATTR, _SYSTEM, _DISCARD = 4, 5, 6, 7, 8, 9, 10
_STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")
"""By Optuna's number of the state."""
BLOCK = 1 << 18
"""Bytes parsed at a time: one call per line takes longer, one call in all takes more memory."""
_END = b"\n"
_ENDED = ("COMPLETE", "PRUNED", "FAIL")


@dataclass(kw_only=True, slots=True)
class _Study:
    trials: list[TrialRecord] = field(default_factory=list)
    forgiven: frozenset[int] = frozenset()
    folder: str | None = None
    kinds: dict[str, object] = field(default_factory=dict)
    """Of the distributions of each parameter."""


@dataclass(kw_only=True, slots=True)
class _Replay:
    studies: dict[int, _Study] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    created: int = 0
    """Studies ever created: the next one's id."""
    trials: list[tuple[TrialRecord, _Study]] = field(default_factory=list)
    """By id."""


def read_journal(path: str, name: str) -> StudyRecord:
    """A study from a journal file; an incomplete last line, which is being written, is left out.

    Raises: Unreadable, OSError, ValueError for a damaged line.
    """
    replay = _Replay()
    if not Path(path).is_file():  # a pipe would be waited for without end
        raise Unreadable("no regular file")
    with Path(path).open("rb") as file:
        rest = b""
        while block := file.read(BLOCK):
            lines, end, rest = (rest + block).rpartition(b"\n")
            if end:
                for log in json.loads(f"[{lines.replace(_END, b',').decode()}]"):
                    _apply(replay, log)
    if name not in replay.names:
        raise NoSuchStudy(f"no study {name!r}")
    study = replay.studies[replay.names[name]]
    return StudyRecord(trials=study.trials, forgiven=study.forgiven, folder=study.folder)


def _apply(replay: _Replay, log: dict[str, Any]) -> None:
    code = log["op_code"]
    if code == _ATTR:
        trial = _open_trial(replay, log)
        if trial is not None:
            trial.attrs.update(log["user_attr"])
    elif code == _PARAM:
        _param(replay, log)
    elif code == _STATE:
        _state(replay, log)
    elif code == _CREATE_TRIAL:
        _create(replay, log)
    elif code in (_CREATE_STUDY, _DELETE_STUDY, _STUDY_ATTR):
        _of_study(replay, log)
    elif code not in (_STUDY_SYSTEM, _INTERMEDIATE, _SYSTEM, _DISCARD):
        raise Unreadable(f"an operation of a newer Optuna: {code}")


def _of_study(replay: _Replay, log: dict[str, Any]) -> None:
    code = log["op_code"]
    if code == _CREATE_STUDY:
        if log["study_name"] not in replay.names:
            replay.names[log["study_name"]] = replay.created
            replay.studies[replay.created] = _Study()
            replay.created += 1
    elif code == _DELETE_STUDY:
        if replay.studies.pop(log["study_id"], None):
            replay.names = {name: id_ for name, id_ in replay.names.items() if id_ != log["study_id"]}
    elif log["study_id"] in replay.studies:
        study, attr = replay.studies[log["study_id"]], log["user_attr"]
        study.forgiven = frozenset(attr.get("forgiven", study.forgiven))
        study.folder = attr.get("folder", study.folder)


def _create(replay: _Replay, log: dict[str, Any]) -> None:
    study = replay.studies.get(log["study_id"])
    if study is None:
        return
    spreads = log.get("distributions", {})
    value = log.get("value")
    trial = TrialRecord(
        number=len(study.trials),
        state=_STATES[log.get("state", 0)],
        start=unix(log["datetime_start"]),
        end=unix(log.get("datetime_complete")),
        params={key: external_value(spreads[key], inner) for key, inner in log.get("params", {}).items()},
        values=log.get("values") or ([] if value is None else [value]),
        attrs=dict(log.get("user_attrs", {})),
    )
    study.trials.append(trial)
    replay.trials.append((trial, study))
    for key, text in spreads.items():
        study.kinds.setdefault(key, kind_of(text))


def _open_trial(replay: _Replay, log: dict[str, Any]) -> TrialRecord | None:
    """The trial of an operation; None where it does not exist or has ended."""
    id_ = log["trial_id"]
    if id_ >= len(replay.trials):
        return None
    trial = replay.trials[id_][0]
    return None if trial.state in _ENDED else trial


def _param(replay: _Replay, log: dict[str, Any]) -> None:
    trial = _open_trial(replay, log)
    if trial is None:
        return
    key, text = log["param_name"], log["distribution"]
    kinds = replay.trials[log["trial_id"]][1].kinds
    if kinds.setdefault(key, kind_of(text)) != kind_of(text):
        raise Unreadable(f"{key}: two distributions")
    trial.params[key] = external_value(text, log["param_value_internal"])


def _state(replay: _Replay, log: dict[str, Any]) -> None:
    trial = _open_trial(replay, log)
    state = _STATES[log["state"]]
    if trial is None or state == trial.state == "RUNNING":
        return
    if state == "RUNNING":
        trial.start = unix(log["datetime_start"])
    if state in _ENDED:
        trial.end = unix(log["datetime_complete"])
    trial.state = state
    if log["values"] is not None:
        trial.values = log["values"]

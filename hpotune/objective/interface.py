"""The socket: what every objective is, and how its answer becomes a result."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hpotune.config.schema.rungs import Rung
from hpotune.config.schema.study_config import Json, Objective, StudyConfig
from hpotune.objective.process import Ended, Stop, tail
from hpotune.records.failure_causes import cause_of
from hpotune.records.trial import Failure, TrialResult, TrialSpec
from hpotune.workspace.folder import ROOM, write_atomic

Evaluate = Callable[[Sequence[TrialSpec]], list[TrialResult]]
"""Trials in, their results out, in order; never raises for a trial's own failure."""

MESSAGE_LENGTH = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What an objective may know of where it runs."""

    config: StudyConfig
    env: Mapping[str, str]
    """The worker's environment."""
    stop: Stop


@contextmanager
def one_by_one(evaluate: Callable[[TrialSpec, Setting], TrialResult], setting: Setting) -> Iterator[Evaluate]:
    """The objective that evaluates each trial of a pack by itself, in processes that end with it."""
    yield lambda pack: [evaluate(spec, setting) for spec in pack]


def begun(spec: TrialSpec) -> Path:
    """The spec's file, in a folder that holds no result of an attempt that was paused: this one writes its own."""
    folder = Path(spec.folder)
    (folder / "result.json").unlink(missing_ok=True)
    file = folder / "spec.json"
    write_atomic(file, spec.model_dump_json(indent=1))
    return file


def trial_env(setting: Setting, spec: TrialSpec) -> dict[str, str]:
    """The environment of a trial's process: the worker's, the study's `env.vars`, and where the trial lies."""
    values = {
        key: str(value) for key, value in spec.point.params.items() if isinstance(value, (str, int, float))
    }
    return {
        **setting.env,
        **setting.config.env.vars,
        "HPOTUNE_TRIAL": str(spec.number),
        "HPOTUNE_TRIAL_DIR": spec.folder,
        "HPOTUNE_PARAMS": json.dumps(spec.point.params),
        **_rung_env(spec),
        **{f"HPOTUNE_PARAM_{key.upper()}": value for key, value in values.items()},
    }


def _rung_env(spec: TrialSpec) -> dict[str, str]:
    """How far this turn goes, where the study has rungs, and the folder of the trial that it goes on from."""
    if spec.rung is None:
        return {}
    far = {"HPOTUNE_RUNG": str(spec.rung.index), "HPOTUNE_RUNG_BUDGET": json.dumps(plain_budget(spec.rung))}
    return far if spec.parent is None else {**far, "HPOTUNE_PARENT_DIR": spec.parent}


def plain_budget(rung: Rung) -> int | float:
    """Where a rung lies: a share of the run, or a whole number of its unit."""
    return rung.budget if rung.unit == "share" else int(rung.budget)


def contained(config: StudyConfig, command: Sequence[str]) -> list[str]:
    """The command, inside the study's container where it has one."""
    image = config.env.container
    return ["apptainer", "exec", "--nv", image, *command] if image else list(command)


def measured(spec: TrialSpec, answer: Json) -> TrialResult:
    """The result of an answer: a number, or a mapping of numbers by metric.

    `NAME_stderr` beside `NAME` is its standard error.
    """
    objectives = spec.point.score.objective
    metrics = answer if isinstance(answer, Mapping) else {objectives[0].metric: answer}
    values = [metrics.get(objective.metric) for objective in objectives]
    for objective, value in zip(objectives, values, strict=True):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            have = ", ".join(map(str, metrics)) or "nothing"
            return failed(spec, "user", f"gave no number for {objective.metric!r}; it gave {have}")
        if not math.isfinite(value):
            return failed(spec, "nan", f"{objective.metric} is {value}")
    return TrialResult(
        number=spec.number,
        state="finished",
        values=[float(value) for value in values if value is not None],
        stderrs=[_stderr(metrics, objective) for objective in objectives],
        metrics={key: _finite(value) for key, value in metrics.items()},
        rung=spec.rung.index if spec.rung else None,
    )


def _finite(value: Json) -> Json:
    """The value, null for NaN and infinity: JSON has none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _stderr(metrics: Mapping[str, Json], objective: Objective) -> float | None:
    value = metrics.get(f"{objective.metric}_stderr")
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def failed(spec: TrialSpec, cause: str, message: str) -> TrialResult:
    """A result without a value, with its reason."""
    line = " ".join(message.split())
    failure = Failure.model_validate({"cause": cause, "message": line[:MESSAGE_LENGTH]})
    return TrialResult(number=spec.number, state="failed", failure=failure)


def from_file(spec: TrialSpec, ended: Ended, *, stop: Stop) -> TrialResult:
    """The result a trial's process wrote; where it wrote none, why it could not."""
    path = Path(spec.folder, "result.json")
    try:
        return TrialResult.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return unfinished(spec, ended, stop=stop)


def _full(spec: TrialSpec) -> bool:
    """Whether the trial's disk takes nothing more."""
    try:
        return shutil.disk_usage(spec.folder).free < ROOM
    except OSError:
        return False


def unfinished(spec: TrialSpec, ended: Ended, *, stop: Stop) -> TrialResult:
    """What a process that ended without a result came to.

    Paused with its worker, out of memory, killed, or failed with the last line it wrote.
    """
    lines = tail(Path(spec.folder), log_start=ended.log_start)
    if (
        stop.signal is not None
    ):  # the wish of the user or of Slurm is no failure: the next worker does it again
        return TrialResult(number=spec.number, state="paused")
    if named := cause_of(lines):
        cause, line = named
        return failed(spec, cause, f"its process {ended.words}: {line[:200]}")
    if _full(spec):  # its last line may have found no room either
        return failed(spec, "store", f"its process {ended.words}, and the disk of {spec.folder} is full")
    if ended.killed:
        return failed(spec, "killed", f"its process {ended.words}")
    last = f": {lines[-1][:200]}" if lines else ""
    return failed(spec, "user", f"its process {ended.words}{last}")

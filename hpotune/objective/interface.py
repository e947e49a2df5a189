"""The interface of objectives: what each one is given, how its process gets the trial, how its answer is read.

No objective is named here.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hpotune.config.param_names import environment
from hpotune.config.schema.rungs import Rung
from hpotune.config.schema.study_config import Objective, StudyConfig
from hpotune.objective.process import ProcessExit, StopRequest, log_tail
from hpotune.records.failure_causes import cause_of, hidden_reason
from hpotune.records.trial import Failure, TrialResult, TrialSpec
from hpotune.workspace.atomic_files import MIN_FREE_BYTES, write_atomic

Evaluate = Callable[[Sequence[TrialSpec]], list[TrialResult]]
"""From trials to their results, in order; a failure of a trial is its result, never an exception."""

MESSAGE_LENGTH = 500
CHAIN_LINES = 400
"""Last lines of a log in which the reason is looked for that a chain of tracebacks hides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialContext:
    """What an objective knows beside the trial: the study's config, the environment, the stop request."""

    config: StudyConfig
    env: Mapping[str, str]
    """The worker's environment."""
    stop: StopRequest


@contextmanager
def one_process_each(
    evaluate: Callable[[TrialSpec, TrialContext], TrialResult], context: TrialContext
) -> Iterator[Evaluate]:
    """An objective that evaluates the trials one after the other, each in processes that end with it."""
    yield lambda specs: [evaluate(spec, context) for spec in specs]


def write_spec(spec: TrialSpec) -> Path:
    """Write the spec into the trial's folder and return its file; the result of an earlier attempt is deleted."""
    folder = Path(spec.folder)
    (folder / "result.json").unlink(missing_ok=True)
    file = folder / "spec.json"
    write_atomic(file, spec.model_dump_json(indent=1))
    return file


def trial_env(context: TrialContext, spec: TrialSpec) -> dict[str, str]:
    """The environment of a trial's process: the worker's, the study's `env.vars`, and the HPOTUNE_ variables."""
    return {
        **context.env,
        **context.config.env.vars,
        "HPOTUNE_TRIAL": str(spec.number),
        "HPOTUNE_TRIAL_DIR": spec.folder,
        "HPOTUNE_PARAMS": json.dumps(spec.point.params),
        **_rung_env(spec),
        **environment(spec.point.params),
    }


def _rung_env(spec: TrialSpec) -> dict[str, str]:
    """The rung to train to, where the study has rungs, and the folder of the trial whose checkpoint is continued."""
    if spec.rung is None:
        return {}
    variables = {
        "HPOTUNE_RUNG": str(spec.rung.index),
        "HPOTUNE_RUNG_BUDGET": json.dumps(rung_budget(spec.rung)),
    }
    return variables if spec.parent is None else {**variables, "HPOTUNE_PARENT_DIR": spec.parent}


def rung_budget(rung: Rung) -> int | float:
    """The budget at a rung: a share of the run, or a whole number of its unit."""
    return rung.budget if rung.unit == "share" else int(rung.budget)


def in_container(config: StudyConfig, command: Sequence[str]) -> list[str]:
    """The command, run in the study's container where it names one."""
    image = config.env.container
    return ["apptainer", "exec", "--nv", image, *command] if image else list(command)


def result_of_answer(spec: TrialSpec, answer: object) -> TrialResult:
    """The result in an objective's answer: a number, or a mapping of numbers by metric.

    `NAME_stderr` beside `NAME` is its standard error.
    """
    objectives = spec.point.score.objective
    metrics: Mapping[str, object] = answer if isinstance(answer, Mapping) else {objectives[0].metric: answer}
    values = []
    for objective in objectives:
        value = metrics.get(objective.metric)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            have = ", ".join(map(str, metrics)) or "nothing"
            return failed_result(spec, "user", f"gave no number for {objective.metric!r}; it gave {have}")
        if not math.isfinite(value):
            return failed_result(spec, "nan", f"{objective.metric} is {value}")
        values.append(float(value))
    return TrialResult(
        number=spec.number,
        state="finished",
        values=values,
        stderrs=[_stderr(metrics, objective) for objective in objectives],
        metrics={key: _finite(value) for key, value in metrics.items()},
        rung=spec.rung.index if spec.rung else None,
    )


def _finite(value: object) -> object:
    """The value, None for NaN and infinity, which JSON lacks."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _stderr(metrics: Mapping[str, object], objective: Objective) -> float | None:
    value = metrics.get(f"{objective.metric}_stderr")
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def failed_result(spec: TrialSpec, cause: str, message: str) -> TrialResult:
    """The result of a trial that failed. `message` becomes one line of at most MESSAGE_LENGTH characters."""
    line = " ".join(message.split())
    failure = Failure.model_validate({"cause": cause, "message": line[:MESSAGE_LENGTH]})
    return TrialResult(number=spec.number, state="failed", failure=failure)


def read_result(spec: TrialSpec, exit_: ProcessExit, *, stop: StopRequest) -> TrialResult:
    """The result that a trial's process wrote; where it wrote none, why, by its exit and its log."""
    path = Path(spec.folder, "result.json")
    try:
        return TrialResult.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return result_of_exit(spec, exit_, stop=stop)


def _disk_is_full(spec: TrialSpec) -> bool:
    """Whether the disk of the trial's folder has too little space for the trial's files."""
    try:
        return shutil.disk_usage(spec.folder).free < MIN_FREE_BYTES
    except OSError:
        return False


def result_of_exit(spec: TrialSpec, exit_: ProcessExit, *, stop: StopRequest) -> TrialResult:
    """The result of a process that ended without writing one.

    Paused if the worker is to stop; else failed: out of memory, disk full, killed, or with the last line of its log.
    """
    lines = log_tail(Path(spec.folder), log_start=exit_.log_start)
    if (
        stop.signal is not None
    ):  # asked to end by the user or by Slurm: no failure, the next worker runs it again
        return TrialResult(number=spec.number, state="paused")
    if found := cause_of(lines):
        cause, line = found
        return failed_result(spec, cause, f"its process {exit_.words}: {line[:200]}")
    if _disk_is_full(spec):  # then its last line may be missing
        return failed_result(
            spec, "store", f"its process {exit_.words}, and the disk of {spec.folder} is full"
        )
    if exit_.killed:
        return failed_result(spec, "killed", f"its process {exit_.words}")
    last = lines[-1][:200] if lines else ""
    inner = hidden_reason(log_tail(Path(spec.folder), log_start=exit_.log_start, lines=CHAIN_LINES))
    last = f"{last} ({inner[:200]})" if inner and inner not in last else last
    own_code = spec.python is not None or spec.command is not None
    missing = last.startswith(("ModuleNotFoundError", "ImportError"))
    cause = "user" if own_code else "library" if missing else "unknown"
    return failed_result(spec, cause, ": ".join(filter(None, [f"its process {exit_.words}", last])))

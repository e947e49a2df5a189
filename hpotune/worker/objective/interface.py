"""The interface of objectives: what each one is given, how its process gets the trial, how its answer is read.

No objective is named here.
"""

from __future__ import annotations

import difflib
import json
import math
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from pathlib import Path

from pydantic import ValidationError

from hpotune.config.param_names import environment
from hpotune.config.schema.rungs import Rung
from hpotune.config.schema.study_config import Objective, StudyConfig
from hpotune.records.failure_causes import FULL_DISK_EXIT, cause_of, hidden_reason, killed_rank
from hpotune.records.progress_record import PROGRESS
from hpotune.records.trial import Failure, TrialResult, TrialSpec
from hpotune.worker.objective.process import ProcessExit, StopRequest, log_tail
from hpotune.workspace.atomic_files import MIN_FREE_BYTES, write_atomic
from hpotune.workspace.trial_reports import forget_stop, was_paused

Evaluate = Callable[[Sequence[TrialSpec]], list[TrialResult]]
"""From trials to their results, in order; a failure of a trial is its result, never an exception."""

ATTEMPT = "HPOTUNE_ATTEMPT"
"""The variable that names the attempt at the trial."""
MESSAGE_LENGTH = 500
SHOWN = 80
"""Characters of a value or of a list of keys that a message shows."""
_NUMBERS = (Real, Decimal)
SIGNAL_GAP_S = 1.0
"""How much later than its trial a worker may take a signal that both were sent, where the trial ended of one."""
SHORT_GAP_S = 0.1
"""The same where the trial ended without a result: a program may end with any exit code on a signal."""
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
    """Write the spec into the trial's folder and return its file; delete result and progress of an earlier attempt."""
    folder = Path(spec.folder)
    (folder / "result.json").unlink(missing_ok=True)
    (folder / PROGRESS).unlink(missing_ok=True)
    forget_stop(folder)
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
        "HPOTUNE_SEED": str(spec.seed),
        ATTEMPT: uuid.uuid4().hex,
        **_own_step(context.env),
        "HPOTUNE_PARAMS": json.dumps(spec.point.params),
        **_rung_env(spec),
        **environment(spec.point.params),
    }


def _own_step(env: Mapping[str, str]) -> dict[str, str]:
    """The worker's own Slurm task, so that the trial's process knows that it is no rank of it."""
    step, rank = env.get("SLURM_STEP_ID"), env.get("SLURM_PROCID")
    return {} if rank is None else {"HPOTUNE_WORKER_TASK": f"{step}.{rank}"}


def _rung_env(spec: TrialSpec) -> dict[str, str]:
    """The rung to train to, where the study has rungs, and the folder of the trial whose checkpoint is continued."""
    if spec.rung is None:
        return {}
    variables = {
        "HPOTUNE_RUNG": str(spec.rung.index),
        "HPOTUNE_RUNG_BUDGET": json.dumps(rung_budget(spec.rung)),
        "HPOTUNE_RUNG_UNIT": spec.rung.unit,
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

    `NAME_stderr` beside `NAME` is its standard error. Further keys whose values are no numbers are left out, and so are
    names that are empty, have spaces around them, or hold characters that are not printed.
    """
    objectives = spec.point.score.objective
    metrics: Mapping[str, object] = answer if isinstance(answer, Mapping) else {objectives[0].metric: answer}
    numbers = {
        str(key): number
        for key, value in metrics.items()
        if (number := _number(value)) is not None and _is_name(str(key))
    }
    values = []
    for objective in objectives:
        value = numbers.get(objective.metric)
        if value is None or isinstance(value, bool):
            return failed_result(spec, "user", _no_number(answer, objective.metric, objectives=objectives))
        if not math.isfinite(value):
            return failed_result(spec, "nan", f"{objective.metric} is {value}")
        values.append(float(value))
    return TrialResult(
        number=spec.number,
        state="finished",
        values=values,
        stderrs=[_stderr(numbers, objective) for objective in objectives],
        metrics={key: value if math.isfinite(value) else None for key, value in numbers.items()},
        rung=spec.rung.index if spec.rung else None,
        left_out={str(key): _in_words(value) for key, value in metrics.items() if str(key) not in numbers},
    )


def _is_name(name: str) -> bool:
    return name != "" and name == name.strip() and name.isprintable()


def _number(value: object) -> int | float | None:
    """The value as a Python number if it is a real number that a float can hold; also NaN and infinity."""
    if isinstance(value, bool):
        return value
    try:
        number = value if isinstance(value, int) else float(value) if isinstance(value, _NUMBERS) else None
        return None if number is None or (isinstance(number, int) and not _fits_float(number)) else number
    except (OverflowError, ValueError):  # a fraction beyond a float's range; a signaling NaN
        return None


def _fits_float(value: int) -> bool:
    return abs(value) <= sys.float_info.max


def _no_number(answer: object, metric: str, *, objectives: Sequence[Objective]) -> str:
    """What an objective returned instead of a number for `metric`, and what it must return."""
    wanted = ", ".join(f"{objective.metric!r}: NUMBER" for objective in objectives)
    needed = f"it must return {'a number, or ' * (len(objectives) == 1)}{{{wanted}}}"
    if not isinstance(answer, Mapping):
        return f"the objective returned {_in_words(answer)}; {needed}"
    if metric in answer:
        return f"the objective returned {_in_words(answer[metric])} for {metric!r}; it must be a number"
    keys = ", ".join(map(str, answer))
    near = difflib.get_close_matches(metric, map(str, answer), n=1)
    hint = f", perhaps {near[0]!r} is meant" if near else ""
    have = f"its keys are {keys[:SHOWN]}{hint}" if answer else "it is empty"
    return f"the objective returned a mapping without {metric!r}; {have}; {needed}"


def _in_words(value: object) -> str:
    """A value that is no number, for messages: `None`, `'high' (str)`, `ndarray of shape (3,)`, `list of 2`."""
    if value is None:
        return "None"
    name = type(value).__name__
    if isinstance(value, (str, bool, int)):
        return (
            f"{repr(value)[:SHOWN]} ({name})"
            if not isinstance(value, int) or value < 10**40
            else f"a huge {name}"
        )
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"{name} of shape {tuple(shape)}"
    return (
        f"{name} of {len(value)}"
        if isinstance(value, (list, tuple, set, Mapping))
        else f"an object of type {name}"
    )


def _stderr(numbers: Mapping[str, int | float], objective: Objective) -> float | None:
    value = numbers.get(f"{objective.metric}_stderr")
    return float(value) if value is not None and math.isfinite(value) else None


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


def result_of_pause(spec: TrialSpec, *, stop: StopRequest) -> TrialResult | None:
    """The result of a program that ended before its time because of `hpotune.should_stop()`; None where it did not.

    What such a program gives as its value is that of a part of the run.
    """
    if not was_paused(Path(spec.folder)):
        return None
    if stop.await_signal(SIGNAL_GAP_S):
        return TrialResult(number=spec.number, state="paused")
    return failed_result(spec, "killed", "its process was sent SIGTERM, not by hpotune, and ended early")


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
    # asked to end by the user or by Slurm: no failure, the next worker runs it again
    if stop.await_signal(SIGNAL_GAP_S if exit_.asked_to_stop else SHORT_GAP_S):
        return TrialResult(number=spec.number, state="paused")
    if found := cause_of(lines):
        cause, line = found
        return failed_result(spec, cause, f"its process {exit_.words}: {line[:200]}")
    own_code = spec.python is not None or spec.command is not None
    if exit_.code == FULL_DISK_EXIT and not own_code:  # there may be room again
        return failed_result(spec, "store", f"its process found the disk of {spec.folder} full")
    if _disk_is_full(spec):  # then its last line may be missing
        return failed_result(
            spec, "store", f"its process {exit_.words}, and the disk of {spec.folder} is full"
        )
    if exit_.killed:
        return failed_result(spec, "killed", f"its process {exit_.words}")
    if signal := killed_rank(lines):
        return failed_result(spec, "killed", f"one of its ranks was killed by {signal}")
    last = lines[-1][:200] if lines else ""
    if exit_.code == 0:
        text = "its process ended with exit code 0 before a value was returned (sys.exit, os._exit or exec)"
        return failed_result(spec, "user", ": ".join(filter(None, [text, last])))
    inner = hidden_reason(log_tail(Path(spec.folder), log_start=exit_.log_start, lines=CHAIN_LINES))
    last = f"{last} ({inner[:200]})" if inner and inner not in last else last
    missing = last.startswith(("ModuleNotFoundError", "ImportError"))
    cause = "user" if own_code else "library" if missing else "unknown"
    return failed_result(spec, cause, ": ".join(filter(None, [f"its process {exit_.words}", last])))

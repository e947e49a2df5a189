"""`hpotune.params`, `report`, `checkpoint_dir`, `last_checkpoint`, `should_stop`: the trial from inside its program.

Files: reports.jsonl and stop.jsonl (workspace/trial_reports.py), progress.json, checkpoint/ in $HPOTUNE_TRIAL_DIR.
Rank 0 writes; the decision to stop because a job ends is its decision, at a step that all ranks are going to reach.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from hpotune.api.in_trial.ranks_of_trial import rank_of, ranks_in
from hpotune.api.in_trial.stop_signal import StopSignal
from hpotune.workspace.trial_reports import REPORTS, STOP, append_line, make_stop_file, stop_after

COMPLETE = "complete.json"
"""In the checkpoint folder: the name of the newest checkpoint that was written to its end (the TrainerCallback's)."""
_PROGRESS_EVERY_S = 1.0


@dataclass(kw_only=True)
class TrialProcess:
    """The trial of this process; without a folder hpotune does not run it, and nothing is done."""

    folder: Path | None
    env: Mapping[str, str]
    signal: StopSignal = field(default_factory=StopSignal)
    step: int | None = None
    steps: int | None = None
    """The last step that was reported, and the steps of the whole run; None: not reported."""
    _calls: int = 0
    _paused: bool = False
    _stop_after: int | None = None
    _first: tuple[float, int] | None = None
    _last_progress: float = 0.0
    _left_out: set[str] = field(default_factory=set)

    @property
    def leads(self) -> bool:
        """Whether this process writes: rank 0 of a trial."""
        return self.folder is not None and rank_of(self.env) == 0

    def params(self, default: Mapping[str, object] | None) -> dict[str, object]:
        """See `params`."""
        given = json.loads(self.env.get("HPOTUNE_PARAMS", "{}")) if self.folder is not None else {}
        return merged(default or {}, given)

    def report(self, metrics: Mapping[str, object], *, step: int | None, steps: int | None) -> None:
        """See `report`."""
        if not isinstance(metrics, Mapping):
            raise TypeError(f"hpotune.report() needs a mapping, such as {{'loss': 0.5}}, not {metrics!r:.80}")
        self._remember(step, steps)
        if self.folder is None or not self.leads:
            return
        record = {"time": round(time.time(), 3), "attempt": self.env.get("HPOTUNE_ATTEMPT", "")}
        numbers = self._numbers(metrics)
        if numbers:
            append_line(self.folder / REPORTS, {**record, "step": self._own(step), "metrics": numbers})
        self._show_progress()

    def continue_from(self, step: int, *, steps: int) -> None:
        """Record that this attempt continues from the state at a step, so that reports of later ones are forgotten."""
        self._remember(step, steps)
        if self.folder is not None and self.leads:
            record = {"attempt": self.env.get("HPOTUNE_ATTEMPT", ""), "step": int(step), "continues": True}
            append_line(self.folder / REPORTS, record)

    def should_stop(self, *, step: int | None = None) -> bool:
        """See `should_stop`."""
        if self.folder is None:
            return False
        self.signal.take()
        self._remember(step, None)
        self._calls += 1
        if self._calls == 1 and self.leads and ranks_in(self.env) > 1:
            make_stop_file(self.folder)
        if self.at_rung():
            return True
        if not self._job_ends():
            return False
        if not self._paused and self.leads:
            append_line(self.folder / STOP, {"paused": True})
        self._paused = True
        return True

    def at_rung(self) -> bool:
        """Whether the last reported step has reached the rung to which this stage runs.

        Raises: ValueError where rungs are shares of the run and its steps were not reported.
        """
        budget, unit = self.env.get("HPOTUNE_RUNG_BUDGET"), self.env.get("HPOTUNE_RUNG_UNIT")
        if self.folder is None or budget is None or self.step is None:
            return False
        if unit == "steps":
            return self.step >= float(budget)
        if self.steps is None:
            raise ValueError(
                "hpotune.should_stop(): search.rungs are shares of the run, whose steps are not known; "
                "call report(…, step=STEP, steps=STEPS), or write search.rungs: {unit: steps, at: [...]}"
            )
        # 1e-9: a third of 9 steps is 3, although 1/3 * 9 may round to more than 3
        return self.step >= max(1, math.ceil(float(budget) * self.steps - 1e-9))

    def _remember(self, step: int | None, steps: int | None) -> None:
        self.step = self.step if step is None else int(step)
        self.steps = self.steps if steps is None else int(steps)

    def _own(self, step: int | None) -> int | None:
        return None if step is None else int(step)

    def _job_ends(self) -> bool:
        """Whether all ranks stop here: one process at once, several after the step at which rank 0 decided so.

        The others may have passed rank 0's step when it decides, but not the next one: ranks meet at every step.
        """
        if ranks_in(self.env) <= 1:
            return self.signal.came
        assert self.folder is not None, "asked inside a trial"
        here = self._calls if self.step is None else self.step
        if self._stop_after is None and self.leads and self.signal.came:
            self._stop_after = here
            append_line(self.folder / STOP, {"stop_after": here})
        elif self._stop_after is None and not self.leads:
            self._stop_after = stop_after(self.folder)
        return self._stop_after is not None and here > self._stop_after

    def _numbers(self, metrics: Mapping[str, object]) -> dict[str, float]:
        found = {str(key): number_of(value) for key, value in metrics.items()}
        for key in [key for key, value in found.items() if value is None and key not in self._left_out]:
            self._left_out.add(key)
            sys.stderr.write(f"hpotune.report: {key!r} is not a number and is left out\n")
        return {key: value for key, value in found.items() if value is not None}

    def _show_progress(self) -> None:
        """Write progress.json, at most once a second; a full disk or a moved folder does not end a training."""
        now = time.monotonic()
        if self.step is None or self.steps is None or self.folder is None:
            return
        self._first = self._first or (now, self.step)
        if now - self._last_progress < _PROGRESS_EVERY_S and self.step < self.steps:
            return
        self._last_progress = now
        record = {"step": self.step, "steps": max(1, self.steps), "first_step": self._first[1]}
        with suppress(OSError):
            new = self.folder / ".progress.json.new"
            new.write_text(json.dumps({**record, "seconds": round(now - self._first[0], 3)}))
            new.replace(self.folder / "progress.json")


def merged(default: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """The defaults with the given values over them, mappings key by key."""
    result = dict(default)
    for key, value in given.items():
        earlier = result.get(key)
        both = isinstance(earlier, Mapping) and isinstance(value, Mapping)
        result[key] = merged(earlier, value) if both else value  # type: ignore[arg-type]
    return result


def number_of(value: object) -> float | int | None:
    """The value as a Python number, also of numpy and torch; None where it is none."""
    if hasattr(value, "item"):
        with suppress(TypeError, ValueError, RuntimeError):  # an array of several numbers
            value = value.item()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    with suppress(TypeError, ValueError, OverflowError):  # Decimal, Fraction
        return None if isinstance(value, (bool, str, bytes)) else float(value)  # type: ignore[arg-type]
    return None


@cache
def this_trial() -> TrialProcess:
    """The trial of this process, by its environment."""
    folder = os.environ.get("HPOTUNE_TRIAL_DIR")
    return TrialProcess(folder=Path(folder) if folder else None, env=os.environ)


def params(default: Mapping[str, object] | None = None) -> dict[str, object]:
    """The trial's parameters over the given defaults; outside hpotune the defaults alone."""
    return this_trial().params(default)


def report(metrics: Mapping[str, object], *, step: int | None = None, steps: int | None = None) -> None:
    """Report scores of the trial, intermediate or final; which of them counts is `score.objective.take`.

    `step`: the step of training they belong to. `steps`: those of the whole run, for the display and for rungs that are
    shares of it. Values that are no numbers are left out with a warning. Raises: TypeError where it is no mapping.
    """
    this_trial().report(metrics, step=step, steps=steps)


def should_stop(*, step: int | None = None) -> bool:
    """Whether to save a checkpoint and end: the trial has reached its rung, or its job is about to end.

    Call it once a step, on all ranks or on rank 0 of one process; `step` where `report` is called less often.
    From the first call on SIGTERM does not end the process, so that it can save; it has 30 s then.
    """
    return this_trial().should_stop(step=step)


def checkpoint_dir() -> Path | None:
    """The folder for the trial's checkpoints, which exists; None outside hpotune."""
    folder = this_trial().folder
    if folder is None:
        return None
    (folder / "checkpoint").mkdir(exist_ok=True)
    return folder / "checkpoint"


def last_checkpoint() -> Path | None:
    """The newest whole checkpoint NAME-N of this trial, else of the one that it continues (pbt); or None."""
    trial = this_trial()
    parent = trial.env.get("HPOTUNE_PARENT_DIR")
    folders = [trial.folder, Path(parent) if parent else None] if trial.folder is not None else []
    found = (_newest(folder / "checkpoint") for folder in folders if folder is not None)
    return next(filter(None, found), None)


def _newest(folder: Path) -> Path | None:
    """The checkpoint that complete.json names; without that file, or without it, the one with the highest number."""
    with suppress(OSError, ValueError, TypeError):
        name = json.loads((folder / COMPLETE).read_text())["checkpoint"]
        if name is None or (folder / name).is_dir():
            return None if name is None else folder / name
    numbered = [
        (int(match[1]), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.is_dir() and (match := re.fullmatch(r"[^.].*?-(\d+)", path.name))
    ]
    return max(numbered, default=(0, None))[1]

"""The studies of a class in one table: how far each is, its best score against the baseline, its cost, its hints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from hpotune.config.schema.execution import Cause
from hpotune.config.schema.study_config import StudyConfig
from hpotune.lab.student_study import READ_ERRORS, ReadStudy, one_line, read_all
from hpotune.lab.study_hints import Hint, study_hints
from hpotune.records.trial import TrialRow
from hpotune.reporting.paired_difference import Difference
from hpotune.reporting.views.best import BestResult, best_result
from hpotune.schedule.failures import failure_causes
from hpotune.schedule.stopping_criterion import stop_reason

RowState = Literal["done", "stopped", "running", "interrupted", "not run", "unreadable"]
"""stopped: by a goal, a budget or failures. running: a worker was heard of within its lease. interrupted: trials are
left and no worker was. not run: there is a study file at most. unreadable: its files are damaged or closed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OverviewRow:
    """One study of one student."""

    student: str
    study: str
    """Its name; empty where there is none."""
    folder: Path
    state: RowState
    problem: str
    """Why it could not be read, or was not run; empty for others."""
    trials: int
    """Finished and pruned ones."""
    budget: int
    score: str
    """What trials are ranked by; empty where nothing is known."""
    best: float | None
    stderr: float | None
    """Standard error of `best`; None where the metric has none."""
    gain: Difference | None
    """The best trial minus the base model, positive is better; None without a baseline."""
    gpu_hours: float
    trial_hours: float
    """Of all attempts."""
    failures: Mapping[Cause, int]
    """Failed trials by cause."""
    last_activity: float | None
    """Unix seconds; None: nothing has run."""
    hints: tuple[Hint, ...]

    @property
    def open_hints(self) -> int:
        """Hints and problems, without what is good."""
        return sum(hint.level != "good" for hint in self.hints)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassOverview:
    """The studies of a class."""

    made: str
    """Local time, ISO 8601."""
    rows: tuple[OverviewRow, ...]


def class_overview(targets: Sequence[Path], *, now: datetime) -> ClassOverview:
    """The studies in these folders, of students or of whole classes, by student."""
    rows = [_row(found, now=now) for found in read_all(targets)]
    ordered = sorted(rows, key=lambda row: (row.student, row.study))
    return ClassOverview(made=now.isoformat(sep=" ", timespec="seconds"), rows=tuple(ordered))


def _row(found: ReadStudy, *, now: datetime) -> OverviewRow:
    if found.study is None or found.folder is None:
        return _without_study(found, found.problem, hints=study_hints(found, now=now))
    config, rows = found.study.config, found.rows
    try:
        best = best_result(found.folder, config, rows)
        hints = study_hints(found, now=now, best=best)
    except READ_ERRORS as error:  # files beside the trials
        return _without_study(found, one_line(error), hints=())
    value, stderr = _score(best)
    return OverviewRow(
        student=found.student,
        study=config.name,
        folder=found.folder.path,
        state=_state(config, rows, now=now),
        problem="",
        trials=sum(row.decided for row in rows),
        budget=config.budget.trials,
        score=best.ranked_by.label,
        best=value,
        stderr=stderr,
        gain=best.gain,
        gpu_hours=round(sum(row.gpu_hours for row in rows), 4),
        trial_hours=round(sum(row.seconds for row in rows) / 3600, 4),
        failures=Counter(failure_causes(rows)),
        last_activity=_last_activity(rows),
        hints=hints,
    )


def _without_study(found: ReadStudy, problem: str, *, hints: tuple[Hint, ...]) -> OverviewRow:
    started = (found.path / "resolved.yaml").exists() if found.folder is None else True
    return OverviewRow(
        student=found.student,
        study=found.path.name if started else "",
        folder=found.path,
        state="unreadable" if started or "cannot be read" in problem else "not run",
        problem=problem,
        trials=0,
        budget=0,
        score="",
        best=None,
        stderr=None,
        gain=None,
        gpu_hours=0.0,
        trial_hours=0.0,
        failures={},
        last_activity=None,
        hints=hints,
    )


def _score(best: BestResult) -> tuple[float | None, float | None]:
    """The best trial's number and its standard error."""
    from hpotune.reporting.views.trial_view import scored

    return (None, None) if best.best is None else scored(best.best, best.ranked_by.label)


def _state(config: StudyConfig, rows: Sequence[TrialRow], *, now: datetime) -> RowState:
    if sum(row.decided for row in rows) >= config.budget.trials:
        return "done"
    heard = [max(row.last_heartbeat or 0.0, row.start or 0.0) for row in rows if row.state == "running"]
    if any(now.timestamp() - at <= config.execution.lease_s for at in heard):
        return "running"
    if stop_reason(config, rows, now=now) is not None:
        return "stopped"
    return "interrupted" if any(row.attempts or row.state == "running" for row in rows) else "not run"


def _last_activity(rows: Sequence[TrialRow]) -> float | None:
    known = [at for row in rows for at in (row.start, row.end, row.last_heartbeat) if at is not None]
    return max([*known, *(one.end for row in rows for one in row.attempts)], default=None)

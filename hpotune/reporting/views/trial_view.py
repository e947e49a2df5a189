"""One trial as `trials`, `best` and `status` show it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hpotune.config.schema.study_config import Objective
from hpotune.config.yaml_source import Value
from hpotune.records.trial import EndedRace, Failure, TrialRow

TrialState = Literal["waiting", "running", "paused", "resting", "finished", "stopped", "failed"]
"""paused: interrupted, waits for a worker. resting: waits for promotion at a rung. stopped: pruned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RungScoreView:
    """The score of a trial at one rung."""

    rung: int
    """From 0."""
    budget: float
    """Training budget of the rung, in the unit of `search.rungs`."""
    values: tuple[float, ...]
    """In the order of `score.objective`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialView:
    """A trial: its point, its scores, its time, and why it failed."""

    number: int
    kind: Literal["baseline", "trial"]
    state: TrialState
    params: Mapping[str, Value]
    """Values of the searched parameters by dotted name; empty for the baseline."""
    values: Mapping[str, float]
    """Score by the label of the objective."""
    stderrs: Mapping[str, float | None]
    """Standard error of each score; None where the metric has none."""
    metrics: Mapping[str, Value]
    """Everything that was measured, by name."""
    failure: Failure | None
    attempts: int
    """Attempts so far, the running one included; a promotion to the next rung is not a new attempt."""
    rungs: tuple[RungScoreView, ...]
    """Lowest rung first."""
    race: EndedRace | None
    """Why it was scored on a part of the items only; its score is an estimate then. None: it was not."""
    generation: int | None
    """From 0; None without `search.algorithm: pbt`."""
    parent: int | None
    """The trial whose checkpoint it continued."""
    retry_of: int | None
    """The failed trial whose point it repeats."""
    forgiven: bool
    """`hpotune retry` has repeated it: the failure does not count against the budget."""
    breaks: tuple[str, ...]
    """Limits of `score.constraints` that it violates."""
    job: str | None
    """Slurm's JOB or ARRAY_ELEMENT; `local` outside Slurm."""
    host: str | None
    start: float | None
    """Start of the last attempt, in Unix seconds."""
    end: float | None
    """Unix seconds."""
    seconds: float | None
    """Total time of all ended attempts; None before the first has ended."""
    gpu_hours: float
    """Of all ended attempts, lost ones included; 0 without GPUs."""


def trial_view(objectives: Sequence[Objective], row: TrialRow) -> TrialView:
    """The view of a trial."""
    labels = [objective.label for objective in objectives]
    return TrialView(
        number=row.number,
        kind=row.kind,
        state=trial_state(row),
        params=dict(row.params),
        values=dict(zip(labels, row.values, strict=False)),
        stderrs=dict(zip(labels, row.stderrs, strict=False)),
        metrics=dict(row.metrics),
        failure=row.failure,
        attempts=max(row.tries + (row.state == "running"), int(bool(row.attempts))),
        rungs=tuple(
            RungScoreView(rung=one.rung, budget=one.budget, values=one.values) for one in row.rung_scores
        ),
        race=row.race,
        generation=row.generation if row.lineage else None,
        parent=row.lineage.parent if row.lineage else None,
        retry_of=row.retry_of,
        forgiven=row.forgiven,
        breaks=row.breaks,
        job=row.worker.job if row.worker else None,
        host=row.worker.host if row.worker else None,
        start=row.start,
        end=row.end,
        seconds=_seconds(row),
        gpu_hours=round(row.gpu_hours, 6),
    )


def scored(trial: TrialView, label: str) -> tuple[float | None, float | None]:
    """A trial's number by its label, and its standard error: an objective, or another number that was measured."""
    if label in trial.values:
        return trial.values[label], trial.stderrs.get(label)
    found = [trial.metrics.get(name) for name in (label, f"{label}_stderr")]
    value, stderr = (
        float(one) if isinstance(one, (int, float)) and not math.isnan(one) else None for one in found
    )
    own = {"seconds": trial.seconds, "gpu_hours": trial.gpu_hours}
    return own.get(label) if value is None else value, stderr


def trial_state(row: TrialRow) -> TrialState:
    """The state of a trial; of waiting ones, what they wait for."""
    return "paused" if row.paused else "resting" if row.awaits_promotion else row.state


def _seconds(row: TrialRow) -> float | None:
    if row.attempts:
        return round(row.seconds, 3)
    if row.end is None or row.start is None or row.end < row.start:  # start and end: clocks of two hosts
        return None
    return round(row.end - row.start, 3)

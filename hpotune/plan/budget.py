"""When a study is over, and what the best of it is. Exact over all workers because it reads rows, not counters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time

from hpotune.study.config import BudgetConfig, Objective
from hpotune.study.trial import TrialRow


def stop_reason(
    budget: BudgetConfig, objectives: Sequence[Objective], rows: Sequence[TrialRow], *, now: datetime
) -> str | None:
    """Why no further trial may start, None while one may.

    A trial that diverged (cause nan) says nothing against the study: it counts only where failures of any cause
    exceed `max_failed` by more than `trials`. A baseline that meets the goal ends nothing.
    """
    finished = [row for row in rows if row.state == "finished"]
    failures = [row.failure.cause if row.failure else "unknown" for row in rows if row.state == "failed"]
    failed = sum(cause != "nan" for cause in failures)
    if len(finished) >= budget.trials:
        return f"{budget.trials} trials finished"
    if failed > budget.max_failed:
        return f"{failed} trials failed (budget.max_failed: {budget.max_failed}); `hpotune trials` shows why"
    if len(failures) > budget.max_failed + budget.trials:
        diverged = len(failures) - failed
        return f"{len(failures)} trials failed, {diverged} of them diverged; narrow the space, e.g. train.learning_rate"
    used = sum(row.gpu_hours for row in rows)
    if budget.gpu_hours is not None and used >= budget.gpu_hours:
        return f"{used:.2f} GPU-hours used (budget.gpu_hours: {budget.gpu_hours:g})"
    if budget.until is not None and now >= _moment(budget):
        return f"it is past {budget.until} (budget.until)"
    reached = [row for row in finished if row.kind == "trial" and _reaches(objectives, row)]
    return f"trial {reached[0].number} reached the goal" if reached else None


def _moment(budget: BudgetConfig) -> datetime:
    until = budget.until
    assert until is not None, "asked only where there is a date"
    if isinstance(until, datetime):
        return until.astimezone().replace(tzinfo=None) if until.tzinfo else until
    return datetime.combine(until, time.max)  # a bare date means to the end of that day


def _reaches(objectives: Sequence[Objective], row: TrialRow) -> bool:
    goals = [(o, value) for o, value in zip(objectives, row.values, strict=False) if o.goal is not None]
    return bool(goals) and all(
        value >= o.goal if o.sense == "maximize" else value <= o.goal
        for o, value in goals
        if o.goal is not None
    )


def best_rows(objectives: Sequence[Objective], rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Finished trials that no other beats: the best one, or the Pareto front of several objectives.

    The baseline competes not.
    """
    tried = [row for row in rows if row.state == "finished" and row.kind == "trial"]
    front = [row for row in tried if not any(_beats(objectives, other, row) for other in tried)]
    return sorted(front, key=lambda row: (_gains(objectives, row), row.number))[
        : None if len(objectives) > 1 else 1
    ]


def ranked(objectives: Sequence[Objective], rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Finished trials, the baseline left out, best first by the first objective; ties by number."""
    tried = [row for row in rows if row.state == "finished" and row.kind == "trial"]
    return sorted(tried, key=lambda row: (_gains(objectives, row)[0], row.number))


def _gains(objectives: Sequence[Objective], row: TrialRow) -> tuple[float, ...]:
    """Values turned so that smaller is better."""
    return tuple(-v if o.sense == "maximize" else v for o, v in zip(objectives, row.values, strict=True))


def _beats(objectives: Sequence[Objective], one: TrialRow, other: TrialRow) -> bool:
    mine, theirs = _gains(objectives, one), _gains(objectives, other)
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))


def dropped(objectives: Sequence[Objective], rows: Sequence[TrialRow], *, keep: int) -> list[int]:
    """Numbers of finished trials whose adapters are not kept: neither among the `keep` best nor on the Pareto front."""
    kept = {row.number for row in ranked(objectives, rows)[:keep]}
    if keep and len(objectives) > 1:
        kept |= {row.number for row in best_rows(objectives, rows)}
    return [row.number for row in rows if row.state == "finished" and row.number not in kept]

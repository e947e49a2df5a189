"""When a study is over, and what the best of it is. Exact over all workers because it reads rows, not counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, time
from heapq import nsmallest
from math import inf

from hpotune.config.schema.execution import BudgetConfig
from hpotune.config.schema.study_config import Objective, StudyConfig
from hpotune.config.schema.walltime import seconds
from hpotune.records.stop_reason import StopReason
from hpotune.records.trial import TrialRow
from hpotune.schedule.failures import UNCOUNTED, equal_failures, held_against
from hpotune.schedule.job_fit import expected_s


def stop_reason(
    config: StudyConfig, rows: Sequence[TrialRow], *, now: datetime, starting: bool = True
) -> StopReason | None:
    """Why no further trial may start; None while one may. A baseline that meets the goal does not end a study.

    `starting=False`: why running trials are to end too; that one more trial would exceed a budget is no reason then.
    """
    budget = config.budget
    finished = [row for row in rows if row.state == "finished"]
    stopped = sum(row.state == "stopped" for row in rows)
    if len(finished) + stopped >= budget.trials:
        early = f", {stopped} of them pruned at a rung" if stopped else ""
        return StopReason(kind="budget_used", text=f"{budget.trials} trials finished{early}")
    objectives = config.score.objective
    if any(objective.goal is not None for objective in objectives):
        reached = [row for row in competing(finished) if _reaches(objectives, row)]
        if reached:
            return StopReason(kind="goal_reached", text=f"trial {reached[0].number} reached the goal")
    return (
        _plateau(budget, rows)
        or failed_too_often(budget, rows)
        or _gpu_hours_out(config, rows, now=now, starting=starting)
        or _time_out(budget, rows, now=now)
    )


def _plateau(budget: BudgetConfig, rows: Sequence[TrialRow]) -> StopReason | None:
    """Whether the last two regret bounds are below `budget.plateau`."""
    looks = [row.outlook for row in rows if row.outlook is not None][-2:]
    if budget.plateau is None or len(looks) < 2 or max(look.regret for look in looks) > budget.plateau:
        return None
    left = looks[-1].regret
    text = f"no point is expected to beat the best by more than {left:.3g} (95 %; budget.plateau: {budget.plateau:g})"
    return StopReason(kind="plateau", text=text)


def failed_too_often(budget: BudgetConfig, rows: Sequence[TrialRow]) -> StopReason | None:
    """Why what has failed ends the study, None where it does not.

    A trial that diverged says nothing against the study, and a broken node neither.

    They count only where failures of any cause exceed `max_failed` by more than `trials`.
    """
    failures = held_against(rows)
    failed = sum(cause not in UNCOUNTED for cause in failures)
    if failed > budget.max_failed:
        text = f"{failed} trials failed (budget.max_failed: {budget.max_failed}); `hpotune trials` shows why"
        return StopReason(kind="max_failed", text=text)
    if len(failures) > budget.max_failed + budget.trials:
        diverged = failures.count("nan")
        text = f"{len(failures)} trials failed, {diverged} of them diverged; narrow the space, e.g. train.learning_rate"
        return StopReason(kind="max_diverged", text=text)
    if len(failures) < budget.max_equal_failures:
        return None
    failure = equal_failures(rows, limit=budget.max_equal_failures)
    if failure is None:
        return None
    text = (
        f"{budget.max_equal_failures} trials in a row failed alike ({failure.cause}: {failure.message}); "
        "fix the cause, then `hpotune retry`"
    )
    return StopReason(kind="equal_failures", text=text)


def gpus_of(config: StudyConfig) -> int:
    """GPUs of one job."""
    return config.resources.nodes * config.resources.gpus_per_node


def gpu_hours_used(config: StudyConfig, rows: Sequence[TrialRow], *, now: datetime) -> float:
    """GPU-hours of all attempts at trials, those that run now counted up to now."""
    running = sum(
        max(0.0, now.timestamp() - row.start) for row in rows if row.state == "running" and row.start
    )
    return sum(row.gpu_hours for row in rows) + running * gpus_of(config) / 3600


def _gpu_hours_out(
    config: StudyConfig, rows: Sequence[TrialRow], *, now: datetime, starting: bool
) -> StopReason | None:
    """Whether the next trial would end beyond budget.gpu_hours, the running ones brought to their expected end."""
    limit = config.budget.gpu_hours
    if limit is None:
        return None
    each_h = (expected_s(config, rows) or 0.0) / 3600 * gpus_of(config)
    running = [row for row in rows if row.state == "running" and row.start]
    ahead = sum(
        max(0.0, each_h - (now.timestamp() - (row.start or 0.0)) / 3600 * gpus_of(config)) for row in running
    )
    used = gpu_hours_used(config, rows, now=now)
    if used >= limit:
        return StopReason(kind="gpu_hours", text=f"{used:.2f} GPU-hours used (budget.gpu_hours: {limit:g})")
    if starting and used + ahead + each_h > limit:
        text = f"{used + ahead:.2f} GPU-hours used or taken; one more trial would exceed budget.gpu_hours: {limit:g}"
        return StopReason(kind="gpu_hours", text=text)
    return None


def _time_out(budget: BudgetConfig, rows: Sequence[TrialRow], *, now: datetime) -> StopReason | None:
    if budget.until is not None and now >= _moment(budget):
        return StopReason(kind="until", text=f"it is past {budget.until} (budget.until)")
    if budget.wall_time is None:
        return None
    starts = [row.attempts[0].start if row.attempts else row.start for row in rows]
    begun = min((start for start in starts if start is not None), default=None)
    if begun is not None and now.timestamp() - begun >= seconds(budget.wall_time):
        text = f"{budget.wall_time} have passed since the first trial started (budget.wall_time)"
        return StopReason(kind="wall_time", text=text)
    return None


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

    The baseline competes not, nor does a trial that breaks a limit of `score.constraints`. While no trial has run to
    its end, those on the highest rung compete; of trials that trained parts of a run those of the last part.
    """
    tried = competing(rows)
    if not any(row.state == "finished" and row.kind == "trial" for row in rows):
        tried = _on_the_way(rows)
    ordered = sorted(tried, key=lambda row: (_gains(objectives, row), row.number))
    if len(objectives) == 1:
        return ordered[:1]
    front: list[TrialRow] = []
    for row in ordered:  # in this order a trial is beaten by one of the front, or by none
        if not any(_beats(objectives, other, row) for other in front):
            front.append(row)
    return front


def _on_the_way(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Trials on the highest rung that any has reached, with the values they had there."""
    climbed = [row for row in rows if row.climbed and row.state != "failed" and not row.climbed[-1].breaks]
    height = max((row.climbed[-1].rung for row in climbed), default=0)
    return [
        replace(row, values=row.climbed[-1].values, stderrs=row.climbed[-1].stderrs)
        for row in climbed
        if row.climbed[-1].rung == height
    ]


def competing(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Finished trials that may be the best one; of several generations those of the highest."""
    found = [row for row in rows if row.state == "finished" and row.kind == "trial" and not row.breaks]
    if all(row.lineage is None for row in found):
        return found
    height = max((row.generation for row in found), default=0)
    return [row for row in found if row.generation == height]


def _gains(objectives: Sequence[Objective], row: TrialRow) -> tuple[float, ...]:
    """Values turned so that smaller is better."""
    return tuple(-v if o.sense == "maximize" else v for o, v in zip(objectives, row.values, strict=True))


def _beats(objectives: Sequence[Objective], one: TrialRow, other: TrialRow) -> bool:
    mine, theirs = _gains(objectives, one), _gains(objectives, other)
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))


def dropped(objectives: Sequence[Objective], rows: Sequence[TrialRow], *, keep: int) -> list[int]:
    """Numbers of ended trials whose adapters are not kept: neither among the `keep` best nor on the Pareto front.

    Of those that were stopped at a rung none is.
    """
    finished = [row for row in rows if row.state == "finished"]
    sign = -1 if objectives[0].sense == "maximize" else 1
    able = competing(finished)
    tried = [sign * row.values[0] for row in able]
    last = max(nsmallest(keep, tried), default=-inf)
    near = [(sign * row.values[0], row.number) for row in able if sign * row.values[0] <= last]
    kept = {number for _, number in sorted(near)[:keep]}
    if keep and len(objectives) > 1:
        kept |= {row.number for row in best_rows(objectives, finished)}
    return [row.number for row in rows if row.decided and row.number not in kept]

"""When a study is over: budgets, goal, plateau, failures. Exact over all workers because it reads rows, not counters.

A pure function: it ends nothing by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from hpotune.config.schema.execution import BudgetConfig
from hpotune.config.schema.study_config import Objective, StudyConfig
from hpotune.records.stop_reason import StopReason
from hpotune.records.trial import TrialRow
from hpotune.records.trial_rows import state_counts
from hpotune.schedule.best_trials import eligible_trials
from hpotune.schedule.failures import UNCOUNTED, equal_failures, failure_causes
from hpotune.schedule.gpu_hours import gpu_hours_of_running, gpu_hours_per_trial, gpu_hours_used
from hpotune.schedule.listed_trials import list_done
from hpotune.schedule.repeats_reserve import end_of_until, end_of_wall_time, reserved_gpu_hours, reserved_s


def stop_reason(
    config: StudyConfig, rows: Sequence[TrialRow], *, now: datetime, starting: bool = True
) -> StopReason | None:
    """Why no further trial may start; None while one may. A baseline that meets the goal does not end a study.

    `starting=False`: why running trials are to end too; that one more trial would exceed a budget is no reason then.
    """
    budget = config.budget
    states = state_counts(rows)
    stopped = states["stopped"]
    if states["finished"] + stopped >= budget.trials:
        return StopReason(kind="budget_used", text=f"{budget.trials} trials finished{_pruned(rows, stopped)}")
    if reason := list_done(config, rows):
        return reason
    objectives = config.score.objective
    if any(objective.goal is not None for objective in objectives):
        finished = [row for row in rows if row.state == "finished"]
        reached = [row for row in eligible_trials(finished) if _meets_goals(objectives, row)]
        if reached:
            return StopReason(kind="goal_reached", text=f"trial {reached[0].number} reached the goal")
    return (
        _plateau(budget, rows)
        or (failed_too_often(budget, rows) if states["failed"] else None)
        or _gpu_hours_used_up(config, rows, now=now, starting=starting)
        or _time_used(config, rows, now=now, starting=starting)
    )


def _pruned(rows: Sequence[TrialRow], stopped: int) -> str:
    """How many trials were pruned, and where; empty without any."""
    raced = sum(row.race is not None for row in rows) if stopped else 0
    counts = {"at a rung": stopped - raced, "while they were scored": raced}
    texts = [f"{count} of them pruned {where}" for where, count in counts.items() if count]
    return "".join(f", {text}" for text in texts)


def _plateau(budget: BudgetConfig, rows: Sequence[TrialRow]) -> StopReason | None:
    """Whether the last two regret bounds are below `budget.plateau`."""
    if budget.plateau is None:
        return None
    bounds = [row.regret_bound for row in rows if row.regret_bound is not None][-2:]
    if len(bounds) < 2 or max(bound.regret for bound in bounds) > budget.plateau:
        return None
    left = bounds[-1].regret
    text = f"no point is expected to beat the best by more than {left:.3g} (95 %; budget.plateau: {budget.plateau:g})"
    return StopReason(kind="plateau", text=text)


def failed_too_often(budget: BudgetConfig, rows: Sequence[TrialRow]) -> StopReason | None:
    """Why failed trials end the study; None where they do not.

    Failures of UNCOUNTED causes (divergence, broken nodes, preemption) count only where failures of any cause exceed
    `max_failed` by more than `trials`.
    """
    failures = failure_causes(rows)
    failed = sum(cause not in UNCOUNTED for cause in failures)
    if failed > budget.max_failed:
        text = f"{failed} trials failed (budget.max_failed: {budget.max_failed}); `hpotune trials` shows why"
        return StopReason(kind="max_failed", text=text)
    if len(failures) > budget.max_failed + budget.trials:
        diverged = failures.count("nan")
        text = (
            f"{len(failures)} trials failed, {diverged} of them by a value that is NaN or infinite; narrow the ranges "
            "where that happens (`hpotune trials` shows them)"
        )
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


def _gpu_hours_used_up(
    config: StudyConfig, rows: Sequence[TrialRow], *, now: datetime, starting: bool
) -> StopReason | None:
    """Whether one more trial would exceed budget.gpu_hours once the running ones have ended."""
    limit = config.budget.gpu_hours
    if limit is None:
        return None
    used = gpu_hours_used(config, rows, now=now)
    if used >= limit:
        return StopReason(kind="gpu_hours", text=f"{used:.2f} GPU-hours used (budget.gpu_hours: {limit:g})")
    if not starting:
        return None
    per_trial = gpu_hours_per_trial(config, rows)
    ahead = gpu_hours_of_running(config, rows, now=now)
    kept = reserved_gpu_hours(config, rows)
    if used + ahead + per_trial + kept > limit:
        text = f"{used + ahead:.2f} GPU-hours used or taken; one more trial would exceed budget.gpu_hours: {limit:g}"
        note = f" ({kept:.2f} of them are kept for the repeats)" if kept else ""
        return StopReason(kind="gpu_hours", text=text + note)
    return None


def _time_used(
    config: StudyConfig, rows: Sequence[TrialRow], *, now: datetime, starting: bool
) -> StopReason | None:
    budget = config.budget
    until, wall = end_of_until(budget), end_of_wall_time(budget, rows)
    if until is None and wall is None:
        return None
    kept = reserved_s(config, rows) if starting else 0.0
    then = now + timedelta(seconds=kept)
    if until is not None and then >= until:
        text = f"it is past {budget.until} (budget.until)"
        if now < until:
            text = f"the repeats would not end before {budget.until} (budget.until)"
        return StopReason(kind="until", text=text)
    if wall is not None and then >= wall:
        text = f"{budget.wall_time} have passed since the first trial started (budget.wall_time)"
        if now < wall:
            text = f"the repeats take the rest of {budget.wall_time} since the first trial started (budget.wall_time)"
        return StopReason(kind="wall_time", text=text)
    return None


def _meets_goals(objectives: Sequence[Objective], row: TrialRow) -> bool:
    goals = [(o, value) for o, value in zip(objectives, row.values, strict=False) if o.goal is not None]
    return bool(goals) and all(
        value >= o.goal if o.sense == "maximize" else value <= o.goal
        for o, value in goals
        if o.goal is not None
    )

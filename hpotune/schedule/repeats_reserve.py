"""What the search leaves of a study's limits for the repeats of its finalists. Pure functions of rows.

`budget.gpu_hours`, `wall_time` and `until` hold for search and repeats together. So the search ends while as much is
left as the repeats will take, by the mean of its finished trials; no more finalists are counted than there are trials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, time, timedelta

from hpotune.config.schema.execution import BudgetConfig
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.schema.walltime import seconds
from hpotune.records.trial import TrialRow
from hpotune.schedule.best_trials import eligible_trials
from hpotune.schedule.gpu_hours import gpu_hours_per_trial
from hpotune.schedule.job_fit import expected_s
from hpotune.schedule.rounds import width

LONGEST_S = 100 * 365 * 86_400
"""Dates end with the year 9999."""


def repeats_due(config: StudyConfig, rows: Sequence[TrialRow]) -> int:
    """How many trainings the repeats of the finalists will be; 0 without `search.repeats`."""
    if not config.search.repeats:
        return 0
    return config.search.repeats * min(config.search.finalists, len(eligible_trials(rows)))


def reserved_gpu_hours(config: StudyConfig, rows: Sequence[TrialRow]) -> float:
    """GPU-hours that the repeats are expected to use."""
    count = repeats_due(config, rows)
    return count * gpu_hours_per_trial(config, rows) if count else 0.0


def reserved_s(config: StudyConfig, rows: Sequence[TrialRow]) -> float:
    """Seconds that the repeats are expected to take, as many at a time as the study's trials, without queues."""
    count = repeats_due(config, rows)
    return math.ceil(count / width(config)) * (expected_s(config, rows) or 0.0) if count else 0.0


def latest_start(budget: BudgetConfig, rows: Sequence[TrialRow]) -> datetime | None:
    """The moment after which no trial starts, by `until` and `wall_time`; None: there is none."""
    ends = [end for end in (end_of_until(budget), end_of_wall_time(budget, rows)) if end is not None]
    return min(ends, default=None)


def end_of_until(budget: BudgetConfig) -> datetime | None:
    """`budget.until` as local time; a bare date means to the end of that day."""
    until = budget.until
    if until is None:
        return None
    if isinstance(until, datetime):
        return until.astimezone().replace(tzinfo=None) if until.tzinfo else until
    return datetime.combine(until, time.max)


def end_of_wall_time(budget: BudgetConfig, rows: Sequence[TrialRow]) -> datetime | None:
    """When `budget.wall_time` has passed since the first trial started; None without it, and before that start."""
    if budget.wall_time is None:
        return None
    starts = [row.attempts[0].start if row.attempts else row.start for row in rows]
    first_start = min((start for start in starts if start is not None), default=None)
    if first_start is None:
        return None
    return datetime.fromtimestamp(first_start) + timedelta(seconds=min(LONGEST_S, seconds(budget.wall_time)))

"""What to submit next, decided from rows alone: `launch/follow_up.py` does it, a simulator can replay it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from hpotune.config.schema.rungs import Ladder
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.jobs import JobRow, JobSpec
from hpotune.records.trial import TrialRow
from hpotune.schedule.failures import bad_nodes
from hpotune.schedule.promotion import rung_decisions
from hpotune.schedule.rounds import may_start, width
from hpotune.schedule.stopping_criterion import stop_reason


def next_jobs(
    config: StudyConfig, rows: Sequence[TrialRow], jobs: Sequence[JobRow], *, now: datetime
) -> list[JobSpec]:
    """The jobs that are missing: nothing while those that live can do the rest, so asking twice changes nothing."""
    if stop_reason(config, rows, now=now):
        return []
    live = [job for job in jobs if job.active and job.kind == "worker"]
    each = config.execution.trials_per_job
    found = _workers(config, rows, live) if each == "auto" else _array(config, rows, live, each)
    if found is None:
        return []
    return [replace(found, exclude=tuple(sorted(bad_nodes(rows))))]


def _workers(config: StudyConfig, rows: Sequence[TrialRow], live: Sequence[JobRow]) -> JobSpec | None:
    """Workers that stay: as many as trials at a time, or as trials that are left."""
    if (ladder := config.search.ladder) is not None:
        due = _due(config, ladder, rows)
        busy = sum(row.state == "running" for row in rows)
        count = min(width(config), busy + due) - len(live) if due else 0
        return JobSpec(count=count, throttle=count, trials=None) if count > 0 else None
    open_ = config.budget.trials - sum(row.state == "finished" for row in rows)
    running = sum(row.state == "running" for row in rows)
    count = min(width(config), open_) - len(live) if open_ > running else 0
    return JobSpec(count=count, throttle=count, trials=None) if count > 0 else None


def _array(
    config: StudyConfig, rows: Sequence[TrialRow], live: Sequence[JobRow], each: int
) -> JobSpec | None:
    """An array whose elements take `each` trials: all that are left, or in batch mode those of the round."""
    batch = config.execution.mode == "batch"
    if len(live) >= (1 if batch else width(config)):
        # a second array beside the first would exceed `parallel`, or begin a round before its time; the step adds it
        return None
    had = Counter(row.worker.job_key for row in rows if row.worker and row.state != "waiting")
    limit = _limit(config, rows)
    if (
        ladder := config.search.ladder
    ) is not None:  # a turn is a rung: a trial takes several, of any workers
        had = Counter(attempt.worker.job_key for row in rows for attempt in row.attempts)
        had += Counter(row.worker.job_key for row in rows if row.worker and row.state == "running")
        left = _due(config, ladder, rows)
    else:
        alive = [row.state for row in rows if row.state != "failed"]
        left = limit - sum(state in ("finished", "running") for state in (alive[:limit] if batch else alive))
    promised = sum(max(0, each - had[job.id]) for job in live)
    count = math.ceil((left - promised) / each)
    return (
        JobSpec(count=count, throttle=min(count, width(config) - len(live)), trials=each)
        if count > 0
        else None
    )


def _due(config: StudyConfig, ladder: Ladder, rows: Sequence[TrialRow]) -> int:
    """Turns that may be taken now, those of trials that have no row yet too."""
    limit = _limit(config, rows)
    unmade = limit - sum(row.state != "failed" for row in rows)
    return rung_decisions(config, ladder, rows, limit=limit).count + max(0, unmade)


def _limit(config: StudyConfig, rows: Sequence[TrialRow]) -> int:
    """How many of the leading trials that have not failed may start."""
    if config.execution.mode != "batch":
        return config.budget.trials
    return may_start(config, [row.decided or bool(row.rung_scores) for row in rows if row.state != "failed"])

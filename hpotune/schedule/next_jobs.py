"""Which jobs are submitted next: a pure function of rows. launch/follow_up.py and the simulator call it."""

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
    config: StudyConfig,
    rows: Sequence[TrialRow],
    jobs: Sequence[JobRow],
    *,
    now: datetime,
    nodes_since: float = 0.0,
) -> list[JobSpec]:
    """The jobs that are missing; none while the active jobs can run the rest, so a second call returns none.

    `nodes_since`: from when failures count against a node, in Unix seconds.
    """
    if stop_reason(config, rows, now=now):
        return []
    active = [job for job in jobs if job.active and job.kind == "worker"]
    each = config.execution.trials_per_job
    found = _workers(config, rows, active) if each == "auto" else _array(config, rows, active, each)
    if found is None:
        return []
    return [replace(found, exclude=tuple(sorted(bad_nodes(rows, since=nodes_since))))]


def _workers(config: StudyConfig, rows: Sequence[TrialRow], active: Sequence[JobRow]) -> JobSpec | None:
    """Workers that run until the study is over: as many as trials at a time, or as trials that are left."""
    if (ladder := config.search.ladder) is not None:
        due = _due(config, ladder, rows)
        busy = sum(row.state == "running" for row in rows)
        count = min(width(config), busy + due) - len(active) if due else 0
        return JobSpec(count=count, throttle=count, trials=None) if count > 0 else None
    open_ = config.budget.trials - sum(row.decided for row in rows)
    running = sum(row.state == "running" for row in rows)
    count = min(width(config), open_) - len(active) if open_ > running else 0
    return JobSpec(count=count, throttle=count, trials=None) if count > 0 else None


def _array(
    config: StudyConfig, rows: Sequence[TrialRow], active: Sequence[JobRow], each: int
) -> JobSpec | None:
    """An array whose elements run `each` trials: all that are left, or in batch mode those of the round."""
    batch = config.execution.mode == "batch"
    if len(active) >= (1 if batch else width(config)):
        # a second array beside the first would exceed `parallel`, or start a round too early; the follow-up adds it
        return None
    had = Counter(row.worker.job_key for row in rows if row.worker and row.state != "waiting")
    limit = _limit(config, rows)
    if (
        ladder := config.search.ladder
    ) is not None:  # each stage up to a rung is one claim: a trial takes several, of any workers
        had = Counter(attempt.worker.job_key for row in rows for attempt in row.attempts)
        had += Counter(row.worker.job_key for row in rows if row.worker and row.state == "running")
        left = _due(config, ladder, rows)
    else:
        not_failed = [row.state for row in rows if row.state != "failed"]
        left = limit - sum(
            state in ("finished", "stopped", "running")
            for state in (not_failed[:limit] if batch else not_failed)
        )
    promised = sum(max(0, each - had[job.id]) for job in active)
    count = math.ceil((left - promised) / each)
    return (
        JobSpec(count=count, throttle=min(count, width(config) - len(active)), trials=each)
        if count > 0
        else None
    )


def _due(config: StudyConfig, ladder: Ladder, rows: Sequence[TrialRow]) -> int:
    """How many trials may be claimed now, with those that have no row yet."""
    limit = _limit(config, rows)
    without_row = limit - sum(row.state != "failed" for row in rows)
    return rung_decisions(config, ladder, rows, limit=limit).count + max(0, without_row)


def _limit(config: StudyConfig, rows: Sequence[TrialRow]) -> int:
    """How many of the leading trials that have not failed may start."""
    if config.execution.mode != "batch":
        return config.budget.trials
    finished = list[bool]()
    for row in rows:
        if row.state != "failed":
            finished.append(row.decided or bool(row.rung_scores))
            if not finished[-1]:  # the round ends here; the trials behind it do not matter
                break
    return may_start(config, finished)

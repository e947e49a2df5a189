"""How long a study will still take: the remaining trials, each of the expected length, on the study's workers.

The expected length is the mean over past trials. It predicts no score and asks no cluster.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.jobs import JobRow
from hpotune.records.trial import TrialRow
from hpotune.schedule.gpu_hours import gpus_per_job
from hpotune.schedule.job_fit import expected_s
from hpotune.schedule.rounds import width


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What the rest of a study takes; None where no trial has shown how long one takes."""

    trials_left: int
    seconds: float | None
    """From now until the last trial ends, once jobs have started."""
    gpu_hours: float | None
    end: str | None
    """Local time, ISO 8601; None where nothing is left."""


def forecast(
    config: StudyConfig,
    rows: Sequence[TrialRow],
    jobs: Sequence[JobRow],
    lost: Sequence[int],
    *,
    silent: Collection[int] = (),
    over: bool,
    now: datetime,
) -> Forecast:
    """The forecast of a study.

    With rungs each remaining trial takes the mean time of the trials that have a rung score, and those that wait for
    promotion take none. `over`: no further trial may start. `lost`: running trials of stale workers; they start again.
    `silent`: running trials without a heartbeat; what they have run is not counted.
    """
    running = [row for row in rows if row.state == "running" and row.number not in lost]
    decided = sum(row.decided for row in rows)
    interrupted = [row for row in rows if row.paused or (row.attempts and row.number in lost)]
    resting = sum(row.awaits_promotion for row in rows)
    started = decided + resting + len(running) + len(interrupted)
    fresh = 0 if over else max(0, config.budget.trials - started)
    trials_left = len(running) + (0 if over else len(interrupted)) + fresh
    known = expected_s(config, rows) if config.search.ladder is None else _mean_with_rungs_s(config, rows)
    if known is None:
        return Forecast(trials_left=trials_left, seconds=None, gpu_hours=None, end=None)
    whole = {"trial": known, "baseline": expected_s(config, rows, "baseline") or known}
    ahead = [
        whole[row.kind] if row.number in silent else _rest_s(whole[row.kind], row, now=now) for row in running
    ]
    then = [] if over else [_rest_s(whole[row.kind], row, now=now) for row in interrupted] + [known] * fresh
    length = _makespan_s(config, ahead, then)
    start = _first_start(jobs, now=now) if not running else now
    return Forecast(
        trials_left=trials_left,
        seconds=round(length, 1),
        gpu_hours=round((sum(ahead) + sum(then)) / 3600 * gpus_per_job(config), 4),
        end=(start + timedelta(seconds=length)).isoformat(timespec="seconds") if ahead or then else None,
    )


def _mean_with_rungs_s(config: StudyConfig, rows: Sequence[TrialRow]) -> float | None:
    """Mean seconds of trials that have a rung score, whichever rung they reached."""
    took = [row.seconds for row in rows if row.rung_scores]
    return sum(took) / len(took) if took else expected_s(config, rows)


def _rest_s(whole: float, row: TrialRow, *, now: datetime) -> float:
    """Seconds that a trial still needs: the expected length less what it has already run."""
    current = now.timestamp() - row.start if row.state == "running" and row.start is not None else 0.0
    return max(0.0, whole - row.seconds - max(0.0, current))


def _makespan_s(config: StudyConfig, ahead: Sequence[float], then: Sequence[float]) -> float:
    """Seconds until the last trial has ended, by list scheduling on the study's workers; rounds wait for their last."""
    workers = width(config)
    if config.execution.mode != "async":
        rounds = [then[at : at + workers] for at in range(0, len(then), workers)]
        return max(ahead, default=0.0) + sum(max(one) for one in rounds)
    ends = [*ahead, *[0.0] * max(0, workers - len(ahead))]
    heapq.heapify(ends)
    for seconds in then:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def _first_start(jobs: Sequence[JobRow], *, now: datetime) -> datetime:
    """When Slurm expects the first pending worker to start; now where it does not say."""
    guesses = []
    for job in jobs:
        if job.estimate and job.kind == "worker":
            try:
                guesses.append(datetime.fromisoformat(job.estimate))
            except ValueError:  # Slurm's N/A
                continue
    return max(now, min(guesses, default=now))

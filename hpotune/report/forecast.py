"""What a study will still take: the trials that are left, each as long as a trial is expected to be, side by side."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from datetime import datetime, timedelta

from hpotune.config.schema.study_config import Json, StudyConfig
from hpotune.records.trial import TrialRow
from hpotune.schedule.job_fit import expected_s
from hpotune.schedule.next_jobs import JobRow
from hpotune.schedule.rounds import width
from hpotune.schedule.stopping_criterion import gpus_of


def forecast(
    config: StudyConfig,
    rows: Sequence[TrialRow],
    jobs: Sequence[JobRow],
    lost: Sequence[int],
    *,
    over: bool,
    now: datetime,
) -> dict[str, Json]:
    """`trials_left`, and what they will take: `seconds` and `gpu_hours` from now, `end` in local time.

    null where nobody knows how long a trial takes. With rungs each that is left takes as much as those that were begun
    took on the average, and those that rest nothing. `over`: no further trial may start. `lost` begin again.
    """
    running = [row for row in rows if row.state == "running" and row.number not in lost]
    decided = sum(row.decided for row in rows)
    begun = [row for row in rows if row.paused or (row.attempts and row.number in lost)]
    resting = sum(row.resting for row in rows)
    fresh = 0 if over else max(0, config.budget.trials - decided - resting - len(running) - len(begun))
    known = expected_s(config, rows) if config.search.ladder is None else _usual_s(config, rows)
    told: dict[str, Json] = {"trials_left": len(running) + (0 if over else len(begun)) + fresh}
    if known is None:
        return {**told, "seconds": None, "gpu_hours": None, "end": None}
    whole = {"trial": known, "baseline": expected_s(config, rows, "baseline") or known}
    ahead = [_rest(whole[row.kind], row, now=now) for row in running]
    then = [] if over else [_rest(whole[row.kind], row, now=now) for row in begun] + [known] * fresh
    length = _side_by_side(config, ahead, then)
    start = _start(jobs, now=now) if not running else now
    return {
        **told,
        "seconds": round(length, 1),
        "gpu_hours": round((sum(ahead) + sum(then)) / 3600 * gpus_of(config), 4),
        "end": (start + timedelta(seconds=length)).isoformat(timespec="seconds") if ahead or then else None,
    }


def _usual_s(config: StudyConfig, rows: Sequence[TrialRow]) -> float | None:
    """Seconds a trial of a study with rungs takes, however far it comes."""
    took = [row.seconds for row in rows if row.climbed]
    return sum(took) / len(took) if took else expected_s(config, rows)


def _rest(whole: float, row: TrialRow, *, now: datetime) -> float:
    """Seconds that a trial has still to go, what it did before taken off."""
    current = now.timestamp() - row.start if row.state == "running" and row.start is not None else 0.0
    return max(0.0, whole - row.seconds - max(0.0, current))


def _side_by_side(config: StudyConfig, ahead: Sequence[float], then: Sequence[float]) -> float:
    """Seconds until the last has ended, when each takes the place of the first to end; rounds wait for their last."""
    places = width(config)
    if config.execution.mode != "async":
        rounds = [then[at : at + places] for at in range(0, len(then), places)]
        return max(ahead, default=0.0) + sum(max(one) for one in rounds)
    ends = [*ahead, *[0.0] * max(0, places - len(ahead))]
    heapq.heapify(ends)
    for seconds in then:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def _start(jobs: Sequence[JobRow], *, now: datetime) -> datetime:
    """When the first waiting job is expected to start, as far as Slurm says."""
    guesses = []
    for job in jobs:
        if job.estimate and job.kind == "worker":
            try:
                guesses.append(datetime.fromisoformat(job.estimate))
            except ValueError:  # N/A
                continue
    return max(now, min(guesses, default=now))

"""What to submit next, decided from rows alone: `launch/step.py` does it, a simulator can replay it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from hpotune.plan.budget import stop_reason
from hpotune.study.config import StudyConfig
from hpotune.study.trial import TrialRow


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRow:
    """One Slurm job or array element as the cluster tells it."""

    id: str
    """JOB, or ARRAY_ELEMENT."""
    state: str
    """Slurm's word: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, OUT_OF_MEMORY, NODE_FAIL, PREEMPTED …

    GONE where the cluster no longer knows it, UNKNOWN where nobody could be asked.
    """
    reason: str = ""
    """Why it waits, as Slurm says."""
    exit_code: str = ""
    kind: str = "worker"

    @property
    def live(self) -> bool:
        """Whether it will still do something."""
        return self.state in (
            "PENDING",
            "RUNNING",
            "REQUEUED",
            "SUSPENDED",
            "COMPLETING",
            "CONFIGURING",
            "RESIZING",
            "STOPPED",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec:
    """An array to submit: `count` elements, `throttle` of them at a time, each taking `trials`.

    None trials: until the budget or its time is out.
    """

    kind: Literal["worker", "step"] = "worker"
    """step: the small job that starts when the others have ended, tells dead trials and submits what is missing."""
    count: int
    throttle: int
    trials: int | None = None
    after: tuple[str, ...] = ()
    """Job ids a step waits for."""


def next_jobs(
    config: StudyConfig, rows: Sequence[TrialRow], jobs: Sequence[JobRow], *, now: datetime
) -> list[JobSpec]:
    """The jobs that are missing: nothing while those that live can do the rest, so asking twice changes nothing."""
    if stop_reason(config.budget, config.score.objective, rows, now=now):
        return []
    finished = sum(row.state == "finished" for row in rows)
    running = sum(row.state == "running" for row in rows)
    open_slots = config.budget.trials - finished - running
    parallel = 1 if config.execution.mode == "sequential" else config.budget.parallel
    live = [job for job in jobs if job.live and job.kind == "worker"]
    if open_slots <= 0:
        return []
    each = config.execution.trials_per_job
    if each == "auto":
        count = min(parallel, open_slots + running) - len(live)
        return [JobSpec(count=count, throttle=count, trials=None)] if count > 0 else []
    if (
        len(live) >= parallel
    ):  # a second array beside the first would exceed `parallel`; the follow-up step adds it
        return []
    had = Counter(row.worker.job for row in rows if row.worker and row.state != "waiting")
    promised = sum(max(0, each - had[job.id]) for job in live)
    count = math.ceil((open_slots - promised) / each)
    return [JobSpec(count=count, throttle=min(count, parallel - len(live)), trials=each)] if count > 0 else []

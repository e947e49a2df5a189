"""The attempts at a trial: the list with the one that ends now, and whether there will be another. Writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from optuna.trial import FrozenTrial

from hpotune.config.schema.execution import RetryConfig
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import Attempt, Failure, TrialRow, Worker
from hpotune.schedule.gpu_hours import gpus_per_job
from hpotune.storage.readers.trial_record import attempts_of

CLUSTER_CAUSES = ("timeout", "preempted")
"""Causes due to the cluster: retried without limit while each attempt makes progress."""
STANDSTILL = 3
"""Attempts in a row that ended by such a cause without a newer checkpoint: the next would not get further either."""


def attempts_with_current(
    trial: FrozenTrial,
    config: StudyConfig,
    *,
    outcome: Literal["finished", "rung", "failed", "paused"],
    failure: Failure | None = None,
    checkpoint: float | None = None,
    ended_by_other: bool = False,
) -> list[Attempt]:
    """The attempts at a running trial, with the one that ends now last.

    `checkpoint`: when the one that it left was written, in Unix seconds. `ended_by_other`: its worker is stale; the
    attempt then ended with its last heartbeat or checkpoint.
    """
    attrs = trial.user_attrs
    before = list(attempts_of(attrs))
    if not attrs.get("worker"):
        return before  # its worker ended before it wrote its name
    now = time.time()
    start = trial.datetime_start.timestamp() if trial.datetime_start else now
    end = max(start, attrs.get("beat") or 0.0, checkpoint or 0.0) if ended_by_other else now
    current = Attempt(
        worker=Worker(**attrs["worker"]), start=start, end=end, outcome=outcome,
        cause=failure.cause if failure else None, message=failure.message if failure else "", gpus=gpus_per_job(config),
        ended_by_other=ended_by_other, checkpoint=checkpoint, rung=attrs.get("rung"),
    )  # fmt: skip
    if ended_by_other and any((a.worker, a.start) == (current.worker, current.start) for a in before):
        return before  # another process has recorded its end
    return [*before, current]


def is_half_released(row: TrialRow, stale_failure: Callable[[TrialRow], Failure | None]) -> bool:
    """Whether the worker that released a running trial became stale before the trial was WAITING.

    Then its attempt is recorded and its name is removed, but nobody has claimed the trial since.
    """
    if row.worker is not None or not row.attempts or row.start is None:
        return False
    last = row.attempts[-1]
    return (
        row.start <= last.start
        and stale_failure(replace(row, worker=last.worker, last_heartbeat=last.end)) is not None
    )


def may_retry(retry: RetryConfig, attempts: Sequence[Attempt], failure: Failure) -> bool:
    """Whether a trial is tried again. `attempts`: all of them, the one that ended by `failure` last."""
    times = retry.times(failure.cause)
    if times is not None:
        return sum(attempt.cause == failure.cause for attempt in attempts) <= times
    return not is_standstill(attempts)


def is_standstill(attempts: Sequence[Attempt]) -> bool:
    """Whether the cluster ended the last STANDSTILL attempts and none left a newer checkpoint."""
    last = attempts[-STANDSTILL:]
    if len(last) < STANDSTILL or any(attempt.cause not in CLUSTER_CAUSES for attempt in last):
        return False
    before = max((a.checkpoint or 0.0 for a in attempts[:-STANDSTILL]), default=0.0)
    return all((attempt.checkpoint or 0.0) <= before for attempt in last)


def standstill_failure(failure: Failure) -> Failure:
    """The failure of a trial that made no progress, from its last attempt's."""
    message = (
        f"interrupted {STANDSTILL} times without a newer checkpoint ({failure.message}); raise resources.time"
    )
    return Failure(cause=failure.cause, message=message)

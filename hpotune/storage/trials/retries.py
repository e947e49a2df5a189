"""The attempts at a trial as they stand in the store, and whether there will be another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hpotune.config.schema.execution import RetryConfig
from hpotune.records.trial import Attempt, Climbed, Failure, Worker

PROGRESS = ("timeout", "preempted")
"""Causes that come as often as the cluster likes: what counts is whether each attempt gets further."""
STANDSTILL = 3
"""Attempts in a row that ended by such a cause without a newer checkpoint: the next would not get further either."""


def read(attrs: dict[str, Any]) -> tuple[Attempt, ...]:
    """The attempts that a trial's user attributes hold, oldest first."""
    return tuple(
        Attempt(**{**told, "worker": Worker(**told["worker"])}) for told in attrs.get("attempts", ())
    )


def climbed(attrs: dict[str, Any]) -> tuple[Climbed, ...]:
    """The rungs that a trial's user attributes hold, lowest first."""
    return tuple(
        Climbed(**{**told, "values": tuple(told["values"]), "stderrs": tuple(told["stderrs"])})
        for told in attrs.get("rungs", ())
    )


def written(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """The same as JSON."""
    return [asdict(attempt) for attempt in attempts]


def again(retry: RetryConfig, attempts: Sequence[Attempt], failure: Failure) -> bool:
    """Whether a trial goes back in line: `attempts` are those up to now, the one that failed as `failure` last."""
    times = retry.times(failure.cause)
    if times is not None:
        return sum(attempt.cause == failure.cause for attempt in attempts) <= times
    return not stands_still(attempts)


def stands_still(attempts: Sequence[Attempt]) -> bool:
    """Whether the last STANDSTILL attempts were taken by the cluster and left no newer checkpoint."""
    last = attempts[-STANDSTILL:]
    if len(last) < STANDSTILL or any(attempt.cause not in PROGRESS for attempt in last):
        return False
    before = max((a.checkpoint or 0.0 for a in attempts[:-STANDSTILL]), default=0.0)
    return all((attempt.checkpoint or 0.0) <= before for attempt in last)


def never_further(failure: Failure) -> Failure:
    """The failure of a trial that stood still."""
    message = f"taken {STANDSTILL} times without a newer checkpoint ({failure.message}); raise resources.time"
    return Failure(cause=failure.cause, message=message)

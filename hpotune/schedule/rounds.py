"""Which trials may start in which mode. Sequential is batch of width 1; the next trial replaces a failed one."""

from __future__ import annotations

from collections.abc import Sequence

from hpotune.config.schema.study_config import StudyConfig


def look_s(trial_s: float | None) -> float:
    """Interval, in seconds, at which a worker that waits for its round reads the store.

    A fiftieth of a trial: less than 2 % is lost at the end of a round, and hundreds of workers do not overload it.
    """
    return 5.0 if trial_s is None else min(30.0, max(1.0, trial_s / 50))


def width(config: StudyConfig) -> int:
    """Trials at a time."""
    return 1 if config.execution.mode == "sequential" else config.budget.parallel


def round_start(config: StudyConfig, finished: Sequence[bool]) -> int:
    """The first trial of the current round, among the trials that have not failed; 0 in async mode (no rounds).

    `finished`: of these trials, by number.
    """
    if config.execution.mode == "async":
        return 0
    start, step = 0, width(config)
    while start + step <= len(finished) and all(finished[start : start + step]):
        start += step
    return start


def may_start(config: StudyConfig, finished: Sequence[bool]) -> int:
    """How many of the leading trials that have not failed may start: the budget, or the rounds up to this one."""
    if config.execution.mode == "async":
        return config.budget.trials
    return min(config.budget.trials, round_start(config, finished) + width(config))

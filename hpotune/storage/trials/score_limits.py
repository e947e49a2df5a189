"""Limits on measurements that are known only after a trial (`score.constraints`), recorded as Optuna's constraints."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from hpotune.config.schema.study_config import Limit, StudyConfig
from hpotune.records.trial import Attempt, TrialResult
from hpotune.search.base.history import CONSTRAINTS_KEY
from hpotune.search.base.storage_view import is_baseline


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedLimits:
    """What is recorded with a trial about its limits; nothing where the study has none."""

    breaks: bool = False
    """Whether the result breaks a limit."""
    user_attrs: Mapping[str, object] = field(default_factory=dict)
    system_attrs: Mapping[str, object] = field(default_factory=dict)


def limits_of(
    trial: FrozenTrial,
    config: StudyConfig,
    result: TrialResult,
    attempts: Sequence[Attempt],
    *,
    unfinished: bool = False,
) -> RecordedLimits:
    """By how much a result exceeds each limit, for samplers, and the broken limits as text.

    The baseline is exempt: it is never the best trial. To be written before the trial ends, or with its end.
    `unfinished`: scored at a rung before the last; limits on scores and losses are left out there, since more training
    may keep them.
    """
    limits = config.score.constraints
    if not limits or is_baseline(trial):
        return RecordedLimits()
    values = dict(zip((o.label for o in config.score.objective), result.values, strict=False))
    seconds = sum(attempt.seconds for attempt in attempts)
    measured = {"seconds": seconds, **values, **result.metrics}
    if unfinished:
        measured = {
            key: value
            for key, value in measured.items()
            if key not in values and not _improves_with_training(key)
        }
    words = broken(limits, measured)
    kept = words or "breaks" in trial.user_attrs  # of an attempt that ended before its result was recorded
    return RecordedLimits(
        breaks=bool(words),
        user_attrs={"breaks": words} if kept else {},
        system_attrs={CONSTRAINTS_KEY: excesses(limits, measured)},
    )


def _improves_with_training(metric: str) -> bool:
    """Whether a metric may improve with more training: the score of a task, or a loss."""
    return "/" in metric or metric.endswith("loss")


def excesses(limits: Sequence[Limit], measured: Mapping[str, object]) -> list[float]:
    """By how much each bound of each limit is exceeded; above 0: broken. What was not measured exceeds none."""
    found = []
    for limit in limits:
        value = number(measured.get(limit.metric))
        if limit.max is not None:
            found.append(_finite(value - limit.max) if value is not None else 0.0)
        if limit.min is not None:
            found.append(_finite(limit.min - value) if value is not None else 0.0)
    return found


def broken(limits: Sequence[Limit], measured: Mapping[str, object]) -> list[str]:
    """The broken limits as text, e.g. `peak_memory_gb 43.1 > 40`."""
    words = []
    for limit in limits:
        value = number(measured.get(limit.metric))
        if value is not None and limit.max is not None and value > limit.max:
            words.append(f"{limit.metric} {value:.5g} > {limit.max:g}")
        if value is not None and limit.min is not None and value < limit.min:
            words.append(f"{limit.metric} {value:.5g} < {limit.min:g}")
    return words


def number(value: object) -> float | None:
    """The value as a number; None for anything that is not a comparable number, such as NaN."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or math.isnan(value):
        return None
    return float(value)


def _finite(excess: float) -> float:
    """The excess without infinities, which JSON does not have."""
    return min(max(excess, -sys.float_info.max), sys.float_info.max)

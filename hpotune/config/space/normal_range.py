"""Ranges of a normal distribution: `{normal: [mean, sd]}`, and `{lognormal: [mean, sd]}` of the natural logarithm.

As in hyperopt and NNI (`normal(mu, sigma)`, `lognormal(mu, sigma)`), but truncated, because samplers need a bounded
interval: at three standard deviations by default, outside which the normal distribution has 0.3 % of its probability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from hpotune.config.yaml_source import Value

LARGEST_WHOLE = 2**53
"""Magnitude of a bound of whole numbers: beyond it, double precision skips some, and samplers use it."""
MOST_STEPS = 10**9
"""Values of a range with a step."""
WIDTH_SD = 3.0
"""Half-width of the interval in standard deviations, unless the file gives `low` or `high`."""
MAX_LOG = 690.0
"""The largest logarithm; e^709 is the largest double-precision number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NormalInterval:
    """An interval with a truncated normal distribution over it."""

    low: float
    high: float
    whole: bool
    step: float | None
    mean: float
    """For lognormal the mean of the logarithm; `sd` likewise."""
    sd: float


def normal_interval(value: Mapping[str, Value], kind: str) -> NormalInterval:
    """The interval of a normal or lognormal range.

    Raises: ValueError with the rule that is violated.
    """
    mean, sd = _moments(value[kind], kind)
    whole = value.get("int", False)
    if not isinstance(whole, bool):
        raise ValueError(f"int: {whole!r} needs true or false beside {kind}")
    log = kind == "lognormal"
    if log and abs(mean) + WIDTH_SD * sd > MAX_LOG:
        raise ValueError(
            f"lognormal: [{mean:g}, {sd:g}] is beyond the largest number; needs mean and sd of the natural logarithm, "
            "such as [-8.5, 1] for 2e-4 within a factor of 2.7"
        )
    low, high = (math.exp(bound) if log else bound for bound in (mean - WIDTH_SD * sd, mean + WIDTH_SD * sd))
    low, high = _bounds(value, low=low, high=high, positive=log)
    if not math.isfinite(high - low) or (whole and max(abs(low), abs(high)) > LARGEST_WHOLE):
        size = "2^53 with int: true" if whole else "1.7e308"
        raise ValueError(f"{kind}: [{mean:g}, {sd:g}] reaches beyond {size}; needs smaller numbers")
    step = _step(value.get("step"), whole=whole)
    if whole:
        low, high = max(math.ceil(low), 1 if log else math.ceil(low)), math.floor(high)
    if step is not None and (high - low) / step > MOST_STEPS:
        raise ValueError(f"step: {step:g} gives more than {MOST_STEPS:,} values; needs a larger one, or none")
    if step is not None:
        low = low if "low" in value else _tidy(math.ceil(low / step - 1e-9) * step)
        high = _tidy(low + math.floor((high - low) / step + 1e-9) * step)
    if not low < high:
        raise ValueError(
            f"{kind}: [{mean:g}, {sd:g}] has fewer than two values from {low:g} to {high:g}; needs a wider interval"
        )
    return NormalInterval(low=low, high=high, whole=whole, step=step, mean=mean, sd=sd)


def _moments(value: Value, kind: str) -> tuple[float, float]:
    of = " of the natural logarithm" if kind == "lognormal" else ""
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{kind}: {value!r} needs two numbers, [mean, sd]{of}")
    mean, sd = value
    if not _number(mean) or not _number(sd):
        raise ValueError(f"{kind}: {value!r} needs two finite numbers, [mean, sd]{of}")
    if sd <= 0:
        raise ValueError(f"{kind}: [{mean:g}, {sd:g}] needs an sd above 0")
    return float(mean), float(sd)


def _bounds(value: Mapping[str, Value], *, low: float, high: float, positive: bool) -> tuple[float, float]:
    """The bounds of the interval: `low` and `high` of the file, or else the given ones."""
    for key, other in (("low", high), ("high", low)):
        bound = value.get(key)
        if bound is None:
            continue
        if not _number(bound):
            raise ValueError(f"{key}: {bound!r} needs a finite number")
        if positive and bound <= 0:
            raise ValueError(f"{key}: {bound:g} needs a number above 0, as the range is lognormal")
        if bound >= other if key == "low" else bound <= other:
            side = "below" if key == "low" else "above"
            raise ValueError(
                f"{key}: {bound:g} needs to be {side} {other:g}, which is {WIDTH_SD:g} sd from the mean"
            )
        low, high = (float(bound), high) if key == "low" else (low, float(bound))
    if not low < high:
        raise ValueError(f"low: {low:g} needs to be below high: {high:g}")
    return low, high


def _step(step: Value, *, whole: bool) -> float | None:
    if step is None:
        return None
    if not _number(step) or step <= 0 or (whole and step != int(step)):
        raise ValueError(f"step: {step!r} needs a positive {'whole ' if whole else ''}number")
    return step


def _tidy(value: float) -> float:
    """The value rounded to 12 digits, because multiples of a step such as 0.1 differ in the last bits."""
    return float(f"{value:.12g}")


def _number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

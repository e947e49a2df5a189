"""Ranges of a normal distribution: `{normal: [mean, sd]}`, and `{lognormal: [mean, sd]}` of the natural logarithm.

As in hyperopt and NNI (`normal(mu, sigma)`, `lognormal(mu, sigma)`), but with ends: samplers need them. Outside three
standard deviations lies 0.3 % of the measure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from hpotune.config.yaml_source import Value

REACH = 3.0
"""Standard deviations to each side, where the file names no end."""
LARGEST = 690.0
"""Of a logarithm: e^709 is the largest number there is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """An interval and the normal distribution over it."""

    low: float
    high: float
    whole: bool
    step: float | None
    mean: float
    """Of the logarithm for lognormal, as `sd`."""
    sd: float


def measured(value: Mapping[str, Value], kind: str) -> Measured:
    """The interval that a normal or lognormal range means.

    Raises: ValueError with the rule that is broken.
    """
    mean, sd = _moments(value[kind], kind)
    whole = value.get("int", False)
    if not isinstance(whole, bool):
        raise ValueError(f"int: {whole!r} needs true or false beside {kind}")
    log = kind == "lognormal"
    if log and abs(mean) + REACH * sd > LARGEST:
        raise ValueError(
            f"lognormal: [{mean:g}, {sd:g}] leaves all numbers behind; needs mean and sd of the natural logarithm, "
            "such as [-8.5, 1] for 2e-4 within a factor of 2.7"
        )
    low, high = (math.exp(end) if log else end for end in (mean - REACH * sd, mean + REACH * sd))
    low, high = _ends(value, low=low, high=high, positive=log)
    step = _step(value.get("step"), whole=whole)
    if whole:
        low, high = max(math.ceil(low), 1 if log else math.ceil(low)), math.floor(high)
    if step is not None:
        low = low if "low" in value else _tidy(math.ceil(low / step - 1e-9) * step)
        high = _tidy(low + math.floor((high - low) / step + 1e-9) * step)
    if not low < high:
        raise ValueError(
            f"{kind}: [{mean:g}, {sd:g}] holds less than two values from {low:g} to {high:g}; needs a wider one"
        )
    return Measured(low=low, high=high, whole=whole, step=step, mean=mean, sd=sd)


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


def _ends(value: Mapping[str, Value], *, low: float, high: float, positive: bool) -> tuple[float, float]:
    """The ends of the measure, or those that the file names."""
    for key, other in (("low", high), ("high", low)):
        end = value.get(key)
        if end is None:
            continue
        if not _number(end):
            raise ValueError(f"{key}: {end!r} needs a finite number")
        if positive and end <= 0:
            raise ValueError(f"{key}: {end:g} needs a number above 0, as the range is lognormal")
        if end >= other if key == "low" else end <= other:
            raise ValueError(
                f"{key}: {end:g} leaves nothing of the measure, which reaches {REACH:g} sd to {other:g}"
            )
        low, high = (float(end), high) if key == "low" else (low, float(end))
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
    """Without the last bits, in which multiples of a step such as 0.1 differ."""
    return float(f"{value:.12g}")


def _number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

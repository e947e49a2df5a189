"""Whether a trial is worse than another one, asked several times while both are scored item by item in random order.

The items are all that there are: what is tested is the difference over all of them, and what is random is their order.
So the variance of a mean over n of N items has the factor 1 - n/N, and a test at the end would be exact.
Group-sequential: the error is spent over the looks, and the limit of each look follows from the joint distribution of
the statistics, which are those of a random walk over the information 1 / (N/n - 1).
Sources: Armitage, McPherson and Rowe 1969, JRSS A 132 (the recursion over looks); Lan and DeMets 1983, Biometrika 70
(spending; here in proportion to the scored items); Cochran 1977, Sampling Techniques, sections 2.6 and 5.3 (finite
population, strata); Edwards 1948, Psychometrika 13 (continuity correction).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

SHARES = (0.03, 0.06, 0.12, 0.25, 0.45, 0.7)
"""Shares of the items after which the scores are compared; the last items are scored without another test."""
FEWEST_ITEMS = 30
"""Items that the first look has at least."""
_CELLS = 400
_REACH = 8.0
"""Standard deviations of the walk that the numerical integration covers below its limit."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stratum:
    """The scored items of one task."""

    differences: Floats
    """Of the trial's scores minus the other's, larger is better. Shape: (scored items,)."""
    size: int
    """All items of the task."""
    weight: float
    """Of the task in the score; those of all tasks add up to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedEstimate:
    """The difference over all items, estimated from those that are scored."""

    difference: float
    """Larger is better."""
    stderr: float
    """Of the estimate, for the items that are not scored yet; 0 once all are."""
    statistic: float
    """Standardized, with a continuity correction; very negative: the trial is worse. 0 where the two do not differ."""


def looks(items: int) -> tuple[float, ...]:
    """The shares of `items` after which the scores are compared; none where there are too few items for two looks."""
    first = FEWEST_ITEMS / items
    later = [share for share in SHARES if share > 1.2 * first]
    if len(later) == len(SHARES):
        return SHARES
    return (first, *later) if later else ()


@lru_cache(maxsize=64)
def limits(shares: tuple[float, ...], error: float) -> tuple[float, ...]:
    """The limit of the statistic at each look: below it the trial is worse.

    `shares`: increasing, below 1. `error`: the probability that a trial which is equal over all items is below the
    limit at any look; of a better one it is smaller.
    """
    spent = [error * share / shares[-1] for share in shares]
    information = [share / (1 - share) for share in shares]
    found = [NormalDist().inv_cdf(spent[0])]
    # density of the walk, of variance `information`, on the paths that were below no limit
    grid = _grid(found[0] * math.sqrt(information[0]), information[0])
    density = _normal(grid, information[0])
    for before, now, spend in zip(information, information[1:], np.diff(spent), strict=False):
        step = grid[1] - grid[0]
        low, high = -12 * math.sqrt(now), 0.0
        for _ in range(45):  # bisection: the probability of being below grows with the limit
            middle = (low + high) / 2
            below = float(density @ _cdf((middle - grid) / math.sqrt(now - before))) * step
            low, high = (low, middle) if below > spend else (middle, high)
        found.append(high / math.sqrt(now))
        after = _grid(high, now)
        density = (density[None] * _normal(after[:, None] - grid[None], now - before)).sum(axis=1) * step
        grid = after
    return tuple(found)


def paired_estimate(strata: Sequence[Stratum]) -> PairedEstimate:
    """The difference over all items of the tasks, each of which has at least one scored item.

    The variance is taken about 0, the difference that is tested: it is larger than about the mean, so that the test is
    not too bold where few items differ.
    """
    difference = sum(one.weight * float(one.differences.mean()) for one in strata)
    variance = sum(
        one.weight**2
        * float(np.mean(one.differences**2))
        / len(one.differences)
        * (1 - len(one.differences) / one.size)
        for one in strata
    )
    steps = [
        one.weight * float(np.abs(one.differences[one.differences != 0]).min()) / len(one.differences)
        for one in strata
        if one.differences.any()
    ]
    stderr = math.sqrt(variance)
    distance = max(0.0, abs(difference) - min(steps, default=0.0))
    statistic = math.copysign(distance / stderr, difference) if stderr > 0 else 0.0
    return PairedEstimate(difference=difference, stderr=stderr, statistic=statistic)


def _grid(low: float, variance: float) -> Floats:
    """Centres of equal cells from `low` upwards."""
    high = _REACH * math.sqrt(variance)
    width = (high - low) / _CELLS
    return np.asarray(low + width * (np.arange(_CELLS) + 0.5), dtype=np.float64)


def _normal(x: Floats, variance: float) -> Floats:
    return np.asarray(np.exp(-(x**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance), dtype=np.float64)


def _cdf(x: Floats) -> Floats:
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x])

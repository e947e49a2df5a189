"""Two scores on the same items: their difference, its 95 % interval, and a p-value. Not corrected for any choice.

Source: McNemar 1947, exact by the binomial distribution (accuracies); Fisher 1935, sign changes of paired differences
(losses); Efron and Tibshirani 1993, chapters 12 and 13 (bootstrap-t and percentile intervals).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri  # type: ignore[import-untyped]
from scipy.stats import binomtest  # type: ignore[import-untyped]

from hpotune.statistics.score_table import Floats, Ints

DRAWS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedTest:
    """One score minus another on the same items; larger is better."""

    value: float
    low: float
    """The 95 % bootstrap interval."""
    high: float
    p_value: float
    """Two-sided."""
    method: Literal["exact McNemar", "sign changes"]


def paired_test(one: Floats, other: Floats, *, clusters: Ints | None = None) -> PairedTest:
    """The comparison of two trials by their items. Shapes: (items,) each.

    With `clusters` whole clusters are drawn and change their sign, and McNemar's test, which needs independent items,
    is not used.
    """
    delta = _sums(one - other, clusters)
    items = len(one)
    low, high = _interval(delta, items)
    counts = np.isin(np.abs(one), (0, 1)).all() and np.isin(np.abs(other), (0, 1)).all()
    exact = bool(counts) and clusters is None
    return PairedTest(
        value=float(delta.sum() / items),
        low=low,
        high=high,
        p_value=mcnemar(delta) if exact else sign_changes(delta),
        method="exact McNemar" if exact else "sign changes",
    )


def _sums(delta: Floats, clusters: Ints | None) -> Floats:
    if clusters is None:
        return delta
    groups = np.unique(clusters, return_inverse=True)[1]
    return np.bincount(groups, delta).astype(np.float64)


def _interval(delta: Floats, items: int) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    counts = rng.multinomial(len(delta), np.full(len(delta), 1 / len(delta)), size=DRAWS // 5)
    low, high = np.quantile(counts @ delta / items, (0.025, 0.975))
    return float(low), float(high)


def mcnemar(delta: Floats) -> float:
    """The exact two-sided p-value of differences of 1, 0 and -1: whether wins and losses are equally probable."""
    wins, losses = int((delta > 0).sum()), int((delta < 0).sum())
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def sign_changes(delta: Floats) -> float:
    """The two-sided p-value of the sum among sums with random signs; exact for up to 13 differences that are not 0."""
    used = delta[delta != 0]
    if len(used) == 0:
        return 1.0
    observed = abs(float(used.sum())) * (1 - 1e-12)
    if 2 ** len(used) <= DRAWS:
        signs = 1 - 2 * ((np.arange(2 ** len(used))[:, None] >> np.arange(len(used))) & 1)
        return float((np.abs(signs @ used) >= observed).mean())
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(DRAWS, len(used)))
    return float((1 + (np.abs(signs @ used) >= observed).sum()) / (1 + DRAWS))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, corrected so that the probability of any wrong rejection stays below the level.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = sorted(range(len(p_values)), key=lambda position: p_values[position])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = highest
    return corrected


def normal_p_value(value: float, stderr: float) -> float:
    """The two-sided p-value of a normal estimate against zero."""
    if stderr == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * ndtr(-abs(value) / stderr))


def normal_quantile(probability: float) -> float:
    """The quantile of the standard normal distribution."""
    return float(ndtri(probability))

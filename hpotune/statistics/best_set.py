"""Which trials may be the best one: a set that holds the truly best trial with a probability of 95 %.

Each trial is tested against all others at once: it leaves the set if some trial is better by more than the largest of
such differences would be by chance. The quantiles come from a bootstrap of the maximum over the items' contributions,
so that what the trials share (the same items) is used. The trials that leave the set need not be compared any more,
and the others are tested again (step-down).

Source: Hsu 1984, "Constrained simultaneous confidence intervals for multiple comparisons with the best"; Romano and
Wolf 2005, "Exact and approximate stepdown methods for multiple hypothesis testing"; Chernozhukov, Chetverikov and
Kato 2013, "Gaussian approximations and multiplier bootstrap for maxima of sums".
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri  # type: ignore[import-untyped]

from hpotune.statistics.score_table import Floats, ScoreTable
from hpotune.statistics.winner import LEVEL

DRAWS = 2000
MOST = 200
"""Trials that the bootstrap compares. Of more, those behind are compared with the best one by Bonferroni's rule."""


def best_set(table: ScoreTable, *, trials: int | None = None, widen: float = 1.0) -> list[int]:
    """The positions of the trials in the set, best first.

    `trials`: of how many, where the table holds only the best of them. `widen`: by how much longer intervals are where
    standard errors are themselves estimates (Student's t).
    """
    count = trials or len(table.values)
    order = [int(position) for position in np.argsort(-table.values, kind="stable")]
    kept = [
        position
        for position in order[:MOST]
        if position == order[0] or not _far_behind(table, position, order[0], count=count)
    ]
    while len(kept) > 1:
        inside = _tested(table.values[kept], table.parts[kept], widen=widen)
        if inside.all():
            return kept
        kept = [position for position, stays in zip(kept, inside, strict=True) if stays]
    return kept


def _far_behind(table: ScoreTable, position: int, best: int, *, count: int) -> bool:
    """Whether a trial is behind the best one by more than Bonferroni's bound for all pairs with the best."""
    gap = table.values[best] - table.values[position]
    stderr = table.stderr(table.parts[best] - table.parts[position])
    return bool(gap > -float(ndtri(LEVEL / count**2)) * stderr)


def _tested(values: Floats, parts: Floats, *, widen: float) -> np.ndarray:
    """Whether each trial stays. Shapes: `values` (trials,), `parts` (trials, clusters), result (trials,) of bool."""
    products = parts @ parts.T
    own = np.diag(products)
    variances = own[:, None] + own[None, :] - 2 * products
    stderrs = np.sqrt(np.maximum(variances, 0))
    equal = stderrs <= 1e-12 * np.sqrt(own.max(initial=1e-300))  # the same answers to all items
    scale = np.where(equal, np.inf, stderrs)
    noise = np.random.default_rng(0).standard_normal((DRAWS, parts.shape[1])) @ parts.T
    stays = []
    for trial, value in enumerate(values):
        largest = ((noise - noise[:, [trial]]) / scale[trial]).max(axis=1)
        surely_better = bool((values[equal[trial]] > value).any())
        behind = float(((values - value) / scale[trial]).max())
        stays.append(not surely_better and behind <= widen * float(np.quantile(largest, 1 - LEVEL)))
    return np.array(stays)

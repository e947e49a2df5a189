"""Scores of trials on the same items, with the covariance of their errors. Larger scores are better.

The errors of two trials are correlated, since both answer the same items: a hard item is hard for both. A score is a
weighted mean of its items, so its error is the sum of what each cluster of items contributes to the deviation from
it, and the covariance of two scores is the inner product of their contributions. Items that share a passage are one
cluster.
Source: Liang and Zeger 1986 (cluster-robust variance); Miller 2024, arXiv 2411.00640 (clustered errors of
evaluations).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreTable:
    """Scores with contributions to their errors. The covariance of scores a and b is `parts[a] @ parts[b]`."""

    values: Floats
    """Shape (trials,); larger is better."""
    parts: Floats
    """Shape (trials, clusters)."""
    base: float | None = None
    """The base model's score."""
    base_parts: Floats | None = None
    """Shape (clusters,)."""
    by_items: bool = True
    """Whether the covariances are those of the items; False: only each score's own error is known."""
    step: float = 0.0
    """The smallest difference between two scores: 1 / items for an accuracy; 0 for scores that are not counts."""

    def stderr(self, parts: Floats) -> float:
        """The standard error of a score, or of a difference, from its contributions of shape (clusters,)."""
        return math.sqrt(float(parts @ parts))


def table_of_items(
    scores: Floats,
    base: Floats | None = None,
    *,
    clusters: Ints | None = None,
    weights: Floats | None = None,
) -> ScoreTable:
    """The table of scores that are (weighted) means over the same items.

    Shapes: `scores` (trials, items), `base`, `clusters` and `weights` (items,). `clusters`: number of the cluster of
    each item; None: each item is one. `weights`: sum to 1; None: equal.
    Raises: ValueError for fewer than two clusters.
    """
    items = scores.shape[1]
    share = np.full(items, 1 / items) if weights is None else weights
    groups = np.arange(items) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    count = int(groups.max()) + 1
    if count < 2:
        raise ValueError("a standard error needs two clusters of items")
    every = scores if base is None else np.vstack([base, scores])
    values = every @ share
    deviations = (every - values[:, None]) * share
    sums = np.array([np.bincount(groups, row, count) for row in deviations], dtype=np.float64)
    parts = sums * math.sqrt(count / (count - 1))
    whole = bool((every == np.round(every)).all() and np.ptp(share) == 0)
    first = 0 if base is None else 1
    return ScoreTable(
        values=values[first:],
        parts=parts[first:],
        base=float(values[0]) if first else None,
        base_parts=parts[0] if first else None,
        step=1 / items if whole else 0.0,
    )


def table_of_errors(
    values: Floats, stderrs: Floats, base: float | None = None, base_stderr: float | None = None
) -> ScoreTable:
    """The table of scores whose items are not known: their errors count as independent, which is conservative.

    Shapes: `values` and `stderrs` (trials,).
    """
    known = base is not None and base_stderr is not None
    parts = np.diag(np.append(stderrs, base_stderr or 0.0))
    return ScoreTable(
        values=values,
        parts=parts[:-1],
        base=base if known else None,
        base_parts=parts[-1] if known else None,
        by_items=False,
    )

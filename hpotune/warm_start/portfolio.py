"""A portfolio: a few start points from past studies over the same names, chosen so that one of them is good for most.

Greedy selection: the candidates are the best points of every source study; a Gaussian process on the ranks of each
source predicts the score of every candidate in it (ranks, because scores of two tasks cannot be compared). The next
point is the one that most increases the mean over the sources of the best score so far. Past studies only give start
points; using them as the prior mean made the search worse when it was measured.
Source: greedy portfolios as in Feurer et al. 2022, JMLR 23 (auto-sklearn 2.0), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpotune.search.base.unit_cube import Cube

SIZE = 3
"""Points with `portfolio: auto`. Three points reduced the trials that reach the level of 50 trials of TPE from 15 to 8
(seven objectives)."""
CANDIDATES = 3
"""Candidates from each source study."""
MIN_TRIALS = 5
"""Scored trials that a source study needs."""
MAX_TRIALS = 200
"""The best trials of a source that are used; more make the linear solve take a second."""
LENGTH = 0.25
"""Length scale, divided by the square root of the dimension; two random points are 0.41 of that root apart."""
NOISE = 0.1
"""Variance of the noise, relative to the variance 1 of the normal scores."""
MIN_DISTANCE = 0.05
"""Points that are closer than this on every axis count as one point, as their scores differ by noise only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The points of a past study in the unit cube of the new study."""

    points: np.ndarray
    """Shape (n, d)."""
    gains: np.ndarray
    """Values of the objective, larger is better. Shape (n,)."""


def portfolio(cube: Cube, sources: Sequence[Source], *, size: int) -> list[tuple[int, int]]:
    """The chosen points, best first, as (index of the source, index of its point); at most `size`, all different."""
    candidates = [(index, at) for index, source in enumerate(sources) for at in _best(source)]
    if not candidates:
        return []
    points = np.array([sources[index].points[at] for index, at in candidates])
    scores = np.array([_scores(cube, source, points) for source in sources])  # (sources, candidates)
    chosen: list[int] = []
    best = np.full(len(sources), -np.inf)
    while len(chosen) < size:
        left = [c for c in range(len(candidates)) if _new(points, c, chosen)]
        if not left:
            break
        # A source's second-best point does not raise the best score; ties are decided by the mean score.
        worth = [(np.maximum(best, scores[:, c]).mean().round(9), scores[:, c].mean(), -c) for c in left]
        chosen.append(-int(max(worth)[2]))
        best = np.maximum(best, scores[:, chosen[-1]])
    return [candidates[c] for c in chosen]


def _best(source: Source) -> list[int]:
    """Indices of the best points of a source, all different."""
    found: list[int] = []
    for at in np.argsort(-source.gains, kind="stable"):
        if _new(source.points, int(at), found):
            found.append(int(at))
        if len(found) == CANDIDATES:
            break
    return found


def _new(points: np.ndarray, candidate: int, chosen: Sequence[int]) -> bool:
    return all(np.abs(points[candidate] - points[other]).max() > MIN_DISTANCE for other in chosen)


def _scores(cube: Cube, source: Source, points: np.ndarray) -> np.ndarray:
    """Posterior mean of the Gaussian process on a source's ranks at points of shape (c, d). Shape (c,)."""
    top = np.argsort(-source.gains)[:MAX_TRIALS]
    known, ranks = source.points[top], _normal_ranks(source.gains)[top]
    centre = ranks.mean()
    weights = np.linalg.solve(_kernel(cube, known, known) + NOISE * np.eye(len(known)), ranks - centre)
    found: np.ndarray = centre + _kernel(cube, points, known) @ weights
    return found


def _normal_ranks(gains: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks; equal values share their mean rank. Source: Blom's formula."""
    from scipy.special import ndtri  # type: ignore[import-untyped]  # 0.1 s, only needed with past studies
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    found: np.ndarray = ndtri((rankdata(gains) - 0.375) / (len(gains) + 0.25))
    return found


def _kernel(cube: Cube, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Squared exponential kernel; two different unordered categories have the distance of two random points."""
    delta = one[:, None, :] - other[None, :, :]
    delta[:, :, cube.unordered] = np.where(delta[:, :, cube.unordered] == 0, 0.0, 0.41)
    found: np.ndarray = np.exp(-np.square(delta).sum(axis=2) / (2 * LENGTH**2 * len(cube)))
    return found

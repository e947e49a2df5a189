"""Starting points chosen from earlier studies over the same names: few, so that one of them is good for most.

Greedy over the best settings of every source study, each scored in every source study by a small Gaussian process on
ranks (ranks, because scores of two tasks cannot be compared): the next is the one that most raises the mean, over the
sources, of the best so far. Earlier studies start a search; they are never its prior mean, which was measured to hurt.
Source: greedy portfolios as in Feurer et al. 2022, JMLR 23 (auto-sklearn 2.0), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpotune.search.base.unit_cube import Cube

SIZE = 3
"""Settings with `portfolio: auto`: three took the trials to the level of TPE's 50 from 15 to 8 (seven objectives)."""
TOP = 3
"""Candidates from each source study."""
FEWEST = 5
"""Scored trials below which a study tells nothing."""
MOST = 200
"""Trials of a source that are looked at, the best: solving for more takes a second."""
LENGTH = 0.25
"""Length scale over the root of the dimensions; two random points lie at .41 of that root."""
NOISE = 0.1
"""Variance of the noise against one of the ranks' scores."""
APART = 0.05
"""Points that are closer than this on every axis are one setting: noise tells them apart, not merit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What one earlier study tells, in the cube of this one."""

    points: np.ndarray
    """Shape (n, d)."""
    gains: np.ndarray
    """Larger is better. Shape (n,)."""


def portfolio(cube: Cube, sources: Sequence[Source], *, size: int) -> list[tuple[int, int]]:
    """The chosen settings, best first: number of the source, and of its point. At most `size`, all different."""
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
        # one source's second best raises no best: its own score then decides between equals
        worth = [(np.maximum(best, scores[:, c]).mean().round(9), scores[:, c].mean(), -c) for c in left]
        chosen.append(-int(max(worth)[2]))
        best = np.maximum(best, scores[:, chosen[-1]])
    return [candidates[c] for c in chosen]


def _best(source: Source) -> list[int]:
    """The best settings of a source, each unlike those before it."""
    found: list[int] = []
    for at in np.argsort(-source.gains, kind="stable"):
        if _new(source.points, int(at), found):
            found.append(int(at))
        if len(found) == TOP:
            break
    return found


def _new(points: np.ndarray, candidate: int, chosen: Sequence[int]) -> bool:
    return all(np.abs(points[candidate] - points[other]).max() > APART for other in chosen)


def _scores(cube: Cube, source: Source, points: np.ndarray) -> np.ndarray:
    """What a source makes of points of shape (c, d): the mean of a Gaussian process on its ranks. Shape (c,)."""
    top = np.argsort(-source.gains)[:MOST]
    known, ranks = source.points[top], _normal_ranks(source.gains)[top]
    centre = ranks.mean()
    weights = np.linalg.solve(_kernel(cube, known, known) + NOISE * np.eye(len(known)), ranks - centre)
    found: np.ndarray = centre + _kernel(cube, points, known) @ weights
    return found


def _normal_ranks(gains: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks, equal ones shared (Blom's formula)."""
    from scipy.special import ndtri  # type: ignore[import-untyped]  # 0.1 s, only where there are earlier studies
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    found: np.ndarray = ndtri((rankdata(gains) - 0.375) / (len(gains) + 0.25))
    return found


def _kernel(cube: Cube, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Squared exponential; categories without an order are as far as two random points, or not at all."""
    delta = one[:, None, :] - other[None, :, :]
    delta[:, :, cube.unordered] = np.where(delta[:, :, cube.unordered] == 0, 0.0, 0.41)
    found: np.ndarray = np.exp(-np.square(delta).sum(axis=2) / (2 * LENGTH**2 * len(cube)))
    return found

"""The hypervolume of a Pareto front: the volume between its points and a reference point. Smaller values are better.

Source: Zitzler and Thiele 1998 (the indicator); While, Bradstreet and Barone 2012, "A fast way of calculating exact
hypervolumes" (the recursion); Ishibuchi, Imada, Setoguchi and Nojima 2018 (a reference point slightly worse than the
front's worst values). Optuna has the same functions, but not as a part of its interface.
"""

from __future__ import annotations

import numpy as np

from hpotune.statistics.score_table import Floats

MARGIN = 0.1
"""How far the reference point lies beyond the front's worst values, as a share of the front's range."""


def reference_point(points: Floats) -> Floats:
    """A point that is worse than the whole front: its worst values, and a tenth of its range beyond.

    Where the front has one value only, the range is that of all points. Shapes: `points` (trials, objectives), result
    (objectives,).
    """
    front = nondominated(points)
    worst = front.max(axis=0)
    spread, wide = np.ptp(front, axis=0), np.ptp(points, axis=0)
    margin = np.where(spread > 0, spread, np.where(wide > 0, wide, np.maximum(np.abs(worst), 1.0)))
    return np.asarray(worst + MARGIN * margin)


def hypervolume_history(points: Floats, reference: Floats) -> Floats:
    """The hypervolume after each point. Shapes: `points` (trials, objectives) in their order; result (trials,)."""
    front, volume, found = np.empty((0, points.shape[1])), 0.0, []
    for point in points:
        if (point < reference).all() and not (front <= point).all(axis=1).any():
            limited = np.maximum(front, point)
            volume += float(np.prod(reference - point)) - hypervolume(limited, reference)
            front = np.vstack([front[(front < point).any(axis=1)], point])
        found.append(volume)
    return np.array(found)


def hypervolume(points: Floats, reference: Floats) -> float:
    """The volume that the points dominate up to the reference point. Shapes: (points, objectives), (objectives,)."""
    front = nondominated(points[(points < reference).all(axis=1)])
    if len(front) == 0:
        return 0.0
    if front.shape[1] == 2:  # sorted by the first value, the second one falls
        heights = np.append(reference[1], front[:-1, 1]) - front[:, 1]
        return float(((reference[0] - front[:, 0]) * heights).sum())
    volume = 0.0
    for index, point in enumerate(front):  # what each point adds to those behind it
        volume += float(np.prod(reference - point))
        volume -= hypervolume(np.maximum(front[index + 1 :], point), reference)
    return volume


def nondominated(points: Floats) -> Floats:
    """The points that no other point dominates, without repetitions, sorted by their values."""
    ordered = np.unique(points, axis=0)
    kept: list[Floats] = []
    for point in ordered:  # sorted: whatever dominates a point comes before it
        if not kept or not (np.array(kept) <= point).all(axis=1).any():
            kept.append(point)
    return np.array(kept).reshape(-1, points.shape[1])

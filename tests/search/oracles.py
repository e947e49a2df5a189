"""Test functions of published runs (maximized), and a tree that evaluates them one trial at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from optuna.distributions import FloatDistribution

from hpotune.search.base.unit_cube import Cube
from hpotune.search.partition.tree import PartitionTree

ONE = Cube({"x": FloatDistribution(0.0, 1.0)})
TWO = Cube({"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)})


def sines(point: np.ndarray) -> float:
    """Munos 2011, figure 1: its maximum .975599 lies at .867526."""
    return 0.5 * (math.sin(13 * point[0]) * math.sin(27 * point[0]) + 1)


def bowl(point: np.ndarray) -> float:
    """Its maximum 0 lies at (.3, .7)."""
    return -((point[0] - 0.3) ** 2) - 2 * (point[1] - 0.7) ** 2


def played(
    tree: PartitionTree, function: Callable[[np.ndarray], float], trials: int
) -> list[tuple[float, ...]]:
    """The points that a tree asks for in a row, to six digits."""
    points = []
    for _ in range(trials):
        candidate = tree.ask()
        assert candidate is not None, "the space is a continuum"
        points.append(tuple(round(float(u), 6) for u in candidate.point))
        tree.tell(candidate, function(candidate.point))
    return points

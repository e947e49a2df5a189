"""Where to look next: expected improvement, weighed by what is believed beforehand, maximised over the cube.

Source: expected improvement in a stable form: Ament et al. 2023, NeurIPS, arXiv 2310.20708; the prior's weight:
Hvarfner et al. 2022, ICLR (piBO), arXiv 2204.11051.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hpotune.search.base.unit_cube import Cube

FLOOR = 0.1
"""Share of the prior, in each dimension, that is uniform: a belief that is wrong must not rule anything out."""
OTHER = 0.5
"""How far, in the unit cube, a category counts to lie from the one that is believed in: half an axis."""
CELLS = 1000
"""Of a dimension in which the belief is summed up."""
WIDE, NEAR = 384, 384
"""Candidates over the whole cube, and around the best known points; 768 together take 10 ms at 50 trials."""
REACH = (-2.0, -0.3)
"""Ends of the decimal logarithm of a step around a known point: from 1 % of the cube to half of it."""
KEPT, AROUND = 16, 12
"""Best candidates refined in a round, and points tried around each."""
ROUNDS = (0.1, 0.03, 0.01)
"""Steps of the refinement; the last is about what a score can tell apart."""
MOVED = 1.5
"""Dimensions that a step changes, on average: few, so that what is good in the others is kept (at least 30 %)."""


def log_improvement(mean: np.ndarray, sd: np.ndarray, best: float) -> np.ndarray:
    """Logarithm of the expected improvement over `best`: finite also where the improvement rounds to 0."""
    z = (mean - best) / sd
    found: np.ndarray = np.log(sd) + log_h(z)
    return found


def log_h(z: np.ndarray) -> np.ndarray:
    """log(phi(z) + z Phi(z)) (Ament et al. 2023, equation 9)."""
    from scipy.special import erfcx, ndtr  # type: ignore[import-untyped]

    near, tail = np.maximum(z, -1.0), np.minimum(z, -1.0)
    left = 1 + tail * math.sqrt(math.pi / 2) * erfcx(
        -tail / math.sqrt(2)
    )  # of order 1 / z^2: cancels beyond -1e3
    far = np.where(tail < -1e3, -2 * np.log(-tail), np.log(np.maximum(left, 1e-300)))
    phi = np.exp(-0.5 * near * near) / math.sqrt(2 * math.pi)
    log_phi = -0.5 * tail * tail - 0.5 * math.log(2 * math.pi)
    found: np.ndarray = np.where(z > -1, np.log(phi + near * ndtr(near)), log_phi + far)
    return found


def log_belief(cube: Cube, points: np.ndarray) -> np.ndarray:
    """Logarithm of the density believed in beforehand at points of shape (m, d). Shape (m,).

    In each dimension with a prior .9 normal around it and .1 uniform; 0 where no dimension has one.
    """
    total = np.zeros(len(points))
    for j, axis in enumerate(cube.axes):
        if axis.hint.prior is None:
            continue
        away = points[:, j] - axis.unit(axis.hint.prior)
        if axis.unordered:
            away = np.where(away != 0, OTHER, 0.0)
        sd = axis.hint.confidence
        normal = np.exp(-0.5 * (away / sd) ** 2) / (sd * math.sqrt(2 * math.pi))
        total += np.log((1 - FLOOR) * normal + FLOOR)
    return total


def believed(cube: Cube, points: np.ndarray) -> np.ndarray:
    """Even points of shape (m, d) moved so that they are even in what is believed, not in volume."""
    found: np.ndarray = points.copy()
    cells = (np.arange(CELLS) + 0.5) / CELLS
    for j, axis in enumerate(cube.axes):
        if axis.hint.prior is None:
            continue
        line = Cube({axis.name: axis.distribution}, {axis.name: axis.hint})
        mass = np.append(0.0, np.cumsum(np.exp(log_belief(line, line.snap(cells[:, None])))))
        found[:, j] = np.interp(points[:, j], mass / mass[-1], np.arange(CELLS + 1) / CELLS)
    return found


def maximum(
    cube: Cube,
    value: Callable[[np.ndarray], np.ndarray],
    *,
    rng: np.random.Generator,
    best: np.ndarray,
    taken: np.ndarray,
) -> np.ndarray:
    """The point of the cube with the largest value found, other than those taken. Shape (d,).

    `value`: of points (m, d) -> (m,). `best`: good points, shape (b, d), b > 0, around which some candidates lie.
    """
    d, sizes = len(cube), 10 ** rng.uniform(*REACH, (NEAR, 1))
    near = _around(best[rng.integers(len(best), size=NEAR)], cube, rng, sizes)
    points = _free(cube.snap(np.vstack([rng.random((WIDE, d)), near])), taken)
    if not len(points):  # of a small finite space
        return rng.random(d)
    values = value(points)
    for size in ROUNDS:
        order = np.argsort(-values, kind="stable")[:KEPT]
        points, values = points[order], values[order]
        more = _free(cube.snap(_around(np.repeat(points, AROUND, axis=0), cube, rng, size)), taken)
        if len(more):
            points, values = np.vstack([points, more]), np.append(values, value(more))
    found: np.ndarray = points[int(np.argmax(values))]
    return found


def _around(points: np.ndarray, cube: Cube, rng: np.random.Generator, size: np.ndarray | float) -> np.ndarray:
    """Points moved in at least one dimension; a step beyond the cube is mirrored, a category may become any other."""
    n, d = points.shape
    moved = rng.random((n, d)) < max(MOVED / d, 0.3)
    moved[np.arange(n), rng.integers(d, size=n)] = True
    steps = np.abs(points + size * rng.standard_normal((n, d)))
    steps = np.where(steps > 1, 2 - steps, steps)
    steps[:, cube.unordered] = rng.random((n, int(cube.unordered.sum())))
    return np.clip(np.where(moved, steps, points), 0.0, 1.0)


def _free(points: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Those of (m, d) that are not among `taken` (t, d)."""
    known = {row.tobytes() for row in taken}
    return points[[row.tobytes() not in known for row in points]] if known else points

"""The acquisition function and its maximization over the unit cube. Pure: no study, no storage.

Logarithm of the expected improvement (Ament et al. 2023, NeurIPS, arXiv 2310.20708), plus the logarithm of a prior
density of the optimum (piBO: Hvarfner et al. 2022, ICLR, arXiv 2204.11051). Letters in shapes: n points, d axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hpotune.search.base.unit_cube import Cube

UNIFORM_SHARE = 0.1
"""Uniform share of the prior density on each axis: a wrong prior must not exclude any point."""
CATEGORY_DISTANCE = 0.5
"""Distance, in the unit cube, between the category of the prior and any other: half an axis."""
PRIOR_BINS = 1000
"""Bins per axis in which the prior density is summed."""
GLOBAL_CANDIDATES, LOCAL_CANDIDATES = 384, 384
"""Candidates over the whole cube, and around the best known points; 768 together take 10 ms at 50 trials."""
LOG10_STEPS = (-2.0, -0.3)
"""Range of the decimal logarithm of a step around a known point: from 1 % of the cube to half of it."""
REFINED, NEIGHBOURS = 16, 12
"""Best candidates refined in each round, and points tried around each of them."""
REFINEMENT_STEPS = (0.1, 0.03, 0.01)
"""Standard deviation of the steps in each round; differences below the last are smaller than the noise of a score."""
MOVED_AXES = 1.5
"""Axes changed by a step, on average (each with at least 30 %): few, so that good values on the others are kept."""


def log_expected_improvement(mean: np.ndarray, sd: np.ndarray, best: float) -> np.ndarray:
    """Logarithm of the expected improvement over `best`; finite also where the improvement itself rounds to 0.

    Shapes: `mean`, `sd` (n,): the posterior at n points, sd > 0; returns (n,).
    """
    z = (mean - best) / sd
    found: np.ndarray = np.log(sd) + log_h(z)
    return found


def log_h(z: np.ndarray) -> np.ndarray:
    """log(phi(z) + z Phi(z)), phi and Phi the standard normal density and distribution. Shapes: (n,) -> (n,).

    Source: Ament et al. 2023, equation 9.
    """
    from scipy.special import erfcx, ndtr  # type: ignore[import-untyped]

    # For z > -1 the sum is computed directly. Below, both terms cancel; there
    #   phi(z) + z Phi(z) = phi(z) (1 + z Phi(z) / phi(z)),  Phi(z) / phi(z) = sqrt(pi / 2) erfcx(-z / sqrt 2).
    near, tail = np.maximum(z, -1.0), np.minimum(z, -1.0)  # each branch gets only arguments it is good for
    factor = 1 + tail * math.sqrt(math.pi / 2) * erfcx(-tail / math.sqrt(2))
    # The factor tends to 1 / z^2 and cancels itself below -1000: there its limit is used.
    log_factor = np.where(tail < -1e3, -2 * np.log(-tail), np.log(np.maximum(factor, 1e-300)))
    phi = np.exp(-0.5 * near * near) / math.sqrt(2 * math.pi)
    log_phi = -0.5 * tail * tail - 0.5 * math.log(2 * math.pi)
    found: np.ndarray = np.where(z > -1, np.log(phi + near * ndtr(near)), log_phi + log_factor)
    return found


def log_prior(cube: Cube, points: np.ndarray) -> np.ndarray:
    """Logarithm of the prior density of the optimum at points of the unit cube. Shapes: (n, d) -> (n,).

    On each axis with a prior value: 0.9 of a normal density around it, and 0.1 of the uniform density. An axis without
    a prior value adds 0.
    """
    total = np.zeros(len(points))
    for j, axis in enumerate(cube.axes):
        if axis.hint.prior is None:
            continue
        distance = points[:, j] - axis.unit(axis.hint.prior)
        if axis.unordered:
            distance = np.where(distance != 0, CATEGORY_DISTANCE, 0.0)
        sd = axis.hint.confidence
        normal = np.exp(-0.5 * (distance / sd) ** 2) / (sd * math.sqrt(2 * math.pi))
        total += np.log((1 - UNIFORM_SHARE) * normal + UNIFORM_SHARE)
    return total


def prior_quantiles(cube: Cube, points: np.ndarray) -> np.ndarray:
    """Uniform points mapped, axis by axis, to the same quantiles of the prior. Shapes: (n, d) -> (n, d)."""
    found: np.ndarray = points.copy()
    centres = (np.arange(PRIOR_BINS) + 0.5) / PRIOR_BINS
    for j, axis in enumerate(cube.axes):
        if axis.hint.prior is None:
            continue
        line = Cube({axis.name: axis.distribution}, {axis.name: axis.hint})
        density = np.exp(log_prior(line, line.snap(centres[:, None])))
        cumulative = np.append(0.0, np.cumsum(density))
        # the inverse of the prior's distribution function, linear within a bin
        edges = np.arange(PRIOR_BINS + 1) / PRIOR_BINS
        found[:, j] = np.interp(points[:, j], cumulative / cumulative[-1], edges)
    return found


def maximize_acquisition(
    cube: Cube,
    value: Callable[[np.ndarray], np.ndarray],
    *,
    rng: np.random.Generator,
    best: np.ndarray,
    excluded: np.ndarray,
) -> np.ndarray:
    """The point with the largest acquisition value found, by random candidates and local refinement. Shape (d,).

    `value`: the acquisition function, (n, d) -> (n,). `best`: good points, shape (b, d), b > 0, around which half of
    the candidates lie. `excluded`: points that may not be returned, shape (e, d). Where every candidate is excluded
    (small finite spaces), a random point is returned.
    """
    d, steps = len(cube), 10 ** rng.uniform(*LOG10_STEPS, (LOCAL_CANDIDATES, 1))
    local = _perturbed(best[rng.integers(len(best), size=LOCAL_CANDIDATES)], cube, rng, steps)
    points = _without(cube.snap(np.vstack([rng.random((GLOBAL_CANDIDATES, d)), local])), excluded)
    if not len(points):
        return rng.random(d)
    values = value(points)
    for step in REFINEMENT_STEPS:
        order = np.argsort(-values, kind="stable")[:REFINED]
        points, values = points[order], values[order]
        neighbours = _perturbed(np.repeat(points, NEIGHBOURS, axis=0), cube, rng, step)
        more = _without(cube.snap(neighbours), excluded)
        if len(more):
            points, values = np.vstack([points, more]), np.append(values, value(more))
    found: np.ndarray = points[int(np.argmax(values))]
    return found


def _perturbed(
    points: np.ndarray, cube: Cube, rng: np.random.Generator, size: np.ndarray | float
) -> np.ndarray:
    """Points moved along some axes by normal steps, reflected at the sides of the cube. Shapes: (n, d) -> (n, d).

    `size`: standard deviation of the steps, one for all or shape (n, 1). A moved category is drawn anew.
    """
    n, d = points.shape
    moved = rng.random((n, d)) < max(MOVED_AXES / d, 0.3)
    moved[np.arange(n), rng.integers(d, size=n)] = True  # at least one axis
    targets = np.abs(points + size * rng.standard_normal((n, d)))
    targets = np.where(targets > 1, 2 - targets, targets)
    targets[:, cube.unordered] = rng.random((n, int(cube.unordered.sum())))
    return np.clip(np.where(moved, targets, points), 0.0, 1.0)


def _without(points: np.ndarray, excluded: np.ndarray) -> np.ndarray:
    """The rows of `points` (n, d) that are not rows of `excluded` (e, d), compared bit by bit."""
    known = {row.tobytes() for row in excluded}
    return points[[row.tobytes() not in known for row in points]] if known else points

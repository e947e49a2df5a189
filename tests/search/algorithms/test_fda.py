"""The fractal decomposition algorithm: its spheres and steps by hand, its choices, its options."""

from __future__ import annotations

import math

import numpy as np
import pytest
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from hpotune.search.algorithms.fda import FdaSampler, FdaTree
from hpotune.search.base.sampler import SamplerSetup
from tests.search.oracles import ONE, TWO, bowl, played, sines

INNER = 0.5 / (1 + math.sqrt(2))
"""Radius of the spheres within the first."""


def close(points, expected) -> bool:
    return bool(np.allclose(points, expected, rtol=0, atol=1e-6))


def sphere_points(centre: np.ndarray, radius: float) -> np.ndarray:
    """The three points at which a sphere is evaluated."""
    offset = 1.75 * radius / math.sqrt(len(centre))
    return np.clip(np.array([centre, centre + offset, centre - offset]), 0, 1)


def children(centre, radius: float) -> list[np.ndarray]:
    """Centres of the spheres within one."""
    inner = radius / (1 + math.sqrt(2))
    return [
        np.array(centre) + sign * (radius - inner) * np.eye(len(centre))[axis]
        for axis in range(len(centre))
        for sign in (1, -1)
    ]


def test_sphere_has_three_points():
    expected = np.vstack([sphere_points(centre, INNER) for centre in children((0.5, 0.5), 0.5)])
    assert close(played(FdaTree(TWO), bowl, 12), expected)


def test_best_sphere_is_decomposed_next():
    tree = FdaTree(TWO)
    first = np.array(played(tree, bowl, 12))
    best = int(np.argmax([bowl(point) for point in first])) // 3
    parent = children((0.5, 0.5), 0.5)[best]
    second = played(tree, bowl, 12)
    inner = children(parent, INNER)
    assert close(second, np.vstack([sphere_points(centre, INNER / (1 + math.sqrt(2))) for centre in inner]))


def test_local_search_steps_along_axes():
    tree = FdaTree(TWO, depth=1)
    first = np.array(played(tree, bowl, 12))
    best = first[np.argmax([bowl(point) for point in first])]
    step = 1.75 * INNER
    expected = np.clip([best + np.array([step, 0]), best - np.array([step, 0])], 0, 1)
    assert close(played(tree, bowl, 2), expected)


def test_steps_that_find_nothing_better_shrink():
    def peak(
        point: np.ndarray,
    ) -> float:  # in the middle of the first sphere; its first step is looked at already
        return -abs(point[0] - (1 - INNER))

    points = np.array(played(FdaTree(ONE, depth=1, reduction=0.25), peak, 10)).ravel()
    steps = np.array([0.25, -0.25, 0.25**2, -(0.25**2)]) * 1.75 * INNER
    assert close(points[6:], 1 - INNER + steps)


def test_local_search_ends_at_precision():
    coarse, fine = FdaTree(TWO, depth=1, precision=0.2), FdaTree(TWO, depth=1, precision=1e-6)
    for tree in (coarse, fine):
        played(tree, bowl, 18)
    assert len(coarse.used) > 1 == len(fine.used)


def test_exhausted_depth_grows():
    tree = FdaTree(ONE, depth=1, precision=0.3)
    played(tree, sines, 40)
    assert tree.depth > 1


@pytest.mark.parametrize(("cube", "function", "best"), [(ONE, sines, 0.975), (TWO, bowl, -1e-4)])
def test_maximum_after_80_evaluations(cube, function, best):
    tree = FdaTree(cube)
    played(tree, function, 80)
    assert tree.best > best


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"depth": 0}, "depth=0 must be a whole number of at least 1"),
        ({"inflation": 0}, "inflation=0 must be a number from 0.01 to 10"),
        ({"reduction": 1}, "reduction=1 must be a number from 0.01 to 0.99"),
        ({"precision": 2}, "precision=2 must be a number from 1e-09 to 1"),
    ],
)
def test_wrong_options_are_refused(options, expected):
    with pytest.raises(ValueError, match=expected):
        FdaSampler(SamplerSetup(options=options))


class TestFdaIsAnOptunaSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return FdaSampler

"""DIRECT against scipy's, evaluation by evaluation, and against the definition of potentially optimal cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from hpotune.search.algorithms.direct import DirectSampler, DirectTree
from hpotune.search.base.sampler import SamplerSetup
from hpotune.search.base.unit_cube import Cube
from tests.search.oracles import TWO, bowl, played, sines


def branin(point: np.ndarray) -> float:
    a, b = point[0] * 15 - 5, point[1] * 15
    inner = b - 5.1 / (4 * math.pi**2) * a * a + 5 / math.pi * a - 6
    return -(inner**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(a) + 10)


def bump(point: np.ndarray) -> float:
    return math.exp(-8 * ((point[0] - 0.31) ** 2 + (point[1] - 0.77) ** 2)) + 0.3 * math.sin(5 * point[0])


def sphere(point: np.ndarray) -> float:
    return -sum((u - 0.3 - 0.07 * i) ** 2 * (i + 1) for i, u in enumerate(point))


def shifted(point: np.ndarray) -> float:
    return bowl(point) - 1


def scipys(function, dimensions: int, *, local: bool, epsilon: float) -> tuple[list[tuple], list[int]]:
    """Points that scipy evaluates, to six digits, and how many after each iteration.

    With its log on: without it, scipy 1.17 forgets to leave out cells above the hull (`if (logfile)` before the jump).
    """
    from scipy.optimize._direct import direct

    calls, ends = [], []

    def called(point, args=None):
        calls.append(tuple(round(float(u), 6) for u in point))
        return -function(np.asarray(point))

    edges = np.zeros(dimensions), np.ones(dimensions)
    done = lambda point: ends.append(len(calls))  # noqa: E731
    direct(called, *edges, (), True, epsilon, 300, 1000, local, -math.inf, 1e-4, 0.0, 0.0, done)
    return calls, ends


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(
    ("function", "dimensions", "epsilon"),
    [
        (sines, 1, 1e-4), (bowl, 2, 1e-4), (shifted, 2, 1e-4), (shifted, 2, 1e-2), (branin, 2, 1e-4),
        (bump, 2, 1e-4), (sphere, 3, 1e-4), (sphere, 5, 1e-4),
    ],
)  # fmt: skip
def test_every_iteration_evaluates_what_scipys_does(function, dimensions, epsilon, local):
    calls, ends = scipys(function, dimensions, local=local, epsilon=epsilon)
    cube = Cube({f"x{i}": FloatDistribution(0.0, 1.0) for i in range(dimensions)})
    own = played(DirectTree(cube, local=local, epsilon=epsilon), function, len(calls))
    assert len(ends) > 10
    for end in ends:
        assert set(own[:end]) == set(calls[:end])


@pytest.mark.parametrize("function", [bowl, branin, bump])
def test_evaluations_come_in_scipys_order(function):
    calls, _ = scipys(function, 2, local=False, epsilon=1e-4)
    assert played(DirectTree(TWO), function, len(calls)) == calls


@pytest.mark.parametrize("function", [bowl, branin, bump, shifted])
def test_chosen_cells_are_potentially_optimal(function):
    class Checked(DirectTree):
        seen = 0

        def _potentially_optimal(self):
            chosen = super()._potentially_optimal()
            if all(self.gain(cell) is not None for cell in self.leaves):
                sizes = np.array([self.size(cell) for cell in self.leaves])
                values = np.array([-self.gain(cell) for cell in self.leaves])
                slopes = np.concatenate([[0.0], np.logspace(-7, 7, 20_001)])[:, None]
                bounds = values - slopes * sizes
                hope = values.min() - self.epsilon * abs(values.min())
                lowest = bounds <= bounds.min(1, keepdims=True) + 1e-15
                promising = (lowest & (bounds <= hope) & (slopes > 0)).any(0)
                found = {cell.name for cell, yes in zip(self.leaves, promising, strict=True) if yes}
                assert found == {cell.name for cell in chosen}
                self.seen += 1
            return chosen

    tree = Checked(TWO)
    played(tree, function, 150)
    assert tree.seen > 8


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"epsilon": -1}, "epsilon=-1 must be a number from 0 to 1"),
        ({"local": "yes"}, "local='yes' must be true"),
    ],
)
def test_wrong_options_are_refused(options, expected):
    with pytest.raises(ValueError, match=expected):
        DirectSampler(SamplerSetup(options=options))


class TestDirectIsAnOptunaSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return DirectSampler

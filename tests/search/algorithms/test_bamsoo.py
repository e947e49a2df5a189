"""BaMSOO against hand-checked runs with a known Gaussian process; its bounds, posteriors and options."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from hpotune.search.algorithms.bamsoo import (
    BamsooSampler,
    BamsooTree,
    FixedLengthProcess,
    confidence_width,
    fitted_process,
)
from hpotune.search.base.sampler import SamplerSetup
from hpotune.search.partition.tree import Evaluation
from tests.search.oracles import ONE, TWO, bowl, played, sines

SINES = [
    0.5, 0.166667, 0.833333, 0.722222, 0.944444, 0.388889, 0.351852, 0.425926, 0.055556, 0.092593, 0.401235,
    0.87037, 0.537037, 0.04321, 0.874486, 0.685185, 0.878601, 0.882716,
]  # fmt: skip
SINES_SKIPPED = [
    ("2.5", 0.1721), ("2.2", -1.3691), ("3.0", -3.7747), ("4.30", 0.8448), ("3.21", -0.5418), ("4.69", 0.9440),
    ("4.71", 0.9474), ("3.12", 0.5482), ("4.5", 0.8335), ("5.210", 0.9611), ("3.20", 0.6534),
]  # fmt: skip
BOWL = [
    (0.5, 0.5), (0.166667, 0.5), (0.833333, 0.5), (0.166667, 0.166667), (0.166667, 0.833333), (0.5, 0.166667),
    (0.5, 0.833333), (0.055556, 0.833333), (0.277778, 0.833333), (0.833333, 0.166667), (0.833333, 0.833333),
    (0.277778, 0.722222), (0.055556, 0.5), (0.388889, 0.722222), (0.240741, 0.722222),
]  # fmt: skip


def known(length: float):
    return lambda runs, pending: FixedLengthProcess(length, runs, pending)


def skipped(tree: BamsooTree) -> list[tuple[str, float]]:
    """Cells with their lower bound as value."""
    evaluated = {name for name, _, _ in tree.computed_bounds if name in tree.asked}
    return [(name, round(low, 4)) for name, low, _ in tree.computed_bounds if name not in evaluated]


class Watched(BamsooTree):
    """Keeps the names of what it asked for."""

    def __init__(self, *args, **named) -> None:
        self.asked: set[str] = set()
        super().__init__(*args, **named)

    def ask(self, kept=None):
        candidate = super().ask(kept)
        self.asked.add(candidate.name)
        return candidate


def test_one_dimension_matches_reference():
    tree = Watched(ONE, model=known(0.2))
    assert played(tree, sines, 18) == [(x,) for x in SINES]
    assert skipped(tree)[:11] == SINES_SKIPPED
    assert "5.214" in tree.asked  # the middle child of 4.71, which was skipped, is tested again


def test_two_dimensions_match_reference():
    tree = Watched(TWO, model=known(0.5))
    assert played(tree, bowl, 15) == BOWL
    assert skipped(tree)[:2] == [("3.15", -0.0475), ("3.17", -0.1529)]
    assert [name for name, _ in skipped(tree)[:6]] == ["3.15", "3.17", "4.26", "3.5", "4.46", "4.47"]


def test_maximum_after_21_evaluations():
    tree = BamsooTree(ONE, model=known(0.2))
    played(tree, sines, 21)
    assert tree.best == pytest.approx(0.9738, abs=1e-4)


@pytest.mark.parametrize(
    ("tested", "eta", "found"),
    [(1, 0.5, 1.5433), (2, 0.5, 2.2703), (10, 0.5, 3.4047), (50, 0.5, 4.2461), (50, 1.0, 4.0796)],
)
def test_confidence_width_is_published_one(tested, eta, found):
    assert confidence_width(tested, eta) == pytest.approx(found, abs=5e-5)


def test_narrower_bounds_skip_more_cells():
    def tested(scale: float) -> int:
        tree = BamsooTree(ONE, model=known(0.2), beta_scale=scale)
        played(tree, sines, 15)
        return tree.tested

    assert tested(1.0) > tested(10.0)


def test_pending_point_only_reduces_deviation():
    runs = [Evaluation(np.array([0.2]), gains=[1.0]), Evaluation(np.array([0.8]), gains=[0.0])]
    there = np.array([[0.5]])
    alone, beside = FixedLengthProcess(0.2, runs, []), FixedLengthProcess(0.2, runs, [Evaluation(there[0])])
    assert beside.predict(there)[0] == pytest.approx(alone.predict(there)[0])
    assert beside.predict(there)[1] < 0.01 < alone.predict(there)[1]


def test_fitted_process_predicts_in_units():
    points = np.linspace(0, 1, 150)[:, None]
    runs = [Evaluation(point, gains=[500 + 100 * sines(point)]) for point in points]
    mean, sd = fitted_process(np.array([False]))(runs, []).predict(points)
    assert np.abs(mean - [run.gains[0] for run in runs]).max() < 5
    assert sd.max() < 5


def test_collapsed_run_is_clipped():
    points = np.linspace(0, 1, 12)[:, None]
    runs = [Evaluation(point, gains=[float(point[0])]) for point in points[:-1]] + [
        Evaluation(points[-1], gains=[-1e6])
    ]
    mean, _ = fitted_process(np.array([False]))(runs, []).predict(points[[2, 8]])
    assert mean[1] - mean[0] == pytest.approx(6 / 11, abs=0.3)


def test_equal_values_crash_no_fit():
    tree = BamsooTree(ONE, model=fitted_process(np.array([False])))
    assert len(set(played(tree, lambda point: 1.0, 12))) == 12


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"eta": 0}, "eta=0 must be a number from 1e-09 to 1"),
        ({"eta": 1.5}, "eta=1.5 must be a number"),
        ({"beta_scale": -1}, "beta_scale=-1 must be a number of at least 0"),
        ({"length": "long"}, "length='long' must be a number"),
        ({"k": 2.5}, "k=2.5 must be a whole number"),
    ],
)
def test_wrong_options_are_refused(options, expected):
    with pytest.raises(ValueError, match=expected):
        BamsooSampler(SamplerSetup(options=options))


class TestBamsooIsAnOptunaSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return BamsooSampler

"""The greedy portfolio: what it chooses from sources that agree, that differ, and that hold nothing new."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from hpotune.search.base.unit_cube import Cube
from hpotune.warm_start.portfolio import Source, portfolio

SQUARE = Cube({"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)})


def source(peak: tuple[float, float], *, seed: int, n: int = 40, scale: float = 1.0) -> Source:
    points = np.random.default_rng(seed).random((n, 2))
    return Source(points=points, gains=-scale * np.square(points - np.array(peak)).sum(axis=1))


def chosen(sources: list[Source], *, size: int = 3) -> np.ndarray:
    return np.array([sources[index].points[at] for index, at in portfolio(SQUARE, sources, size=size)])


def test_one_source_gives_its_best_settings():
    one = source((0.3, 0.7), seed=0)
    found = [at for _, at in portfolio(SQUARE, [one], size=3)]
    assert sorted(found) == sorted(np.argsort(-one.gains)[:3])


def test_near_points_are_chosen_once():
    near = np.array([[0.3, 0.7], [0.31, 0.69], [0.29, 0.72], [0.5, 0.7], [0.9, 0.1]])
    one = Source(points=near, gains=np.array([5.0, 4.0, 3.0, 2.0, 1.0]))
    assert sorted(at for _, at in portfolio(SQUARE, [one], size=3)) == [0, 3, 4]


def test_agreeing_sources_give_common_best():
    found = chosen([source((0.3, 0.7), seed=seed) for seed in range(4)])
    assert np.abs(found[0] - (0.3, 0.7)).max() < 0.15


def test_second_point_covers_other_sources():
    found = chosen(
        [source((0.1, 0.1), seed=0), source((0.1, 0.1), seed=1), source((0.9, 0.9), seed=2)], size=2
    )
    assert np.abs(found[0] - 0.1).max() < 0.25
    assert np.abs(found[1] - 0.9).max() < 0.25


def test_the_scale_of_scores_says_nothing():
    """Two sources for one peak win over one for another, however large its numbers are."""
    sources = [source((0.1, 0.1), seed=0), source((0.1, 0.1), seed=1), source((0.9, 0.9), seed=2, scale=1e9)]
    assert np.abs(chosen(sources, size=1)[0] - 0.1).max() < 0.25


def test_equal_points_are_chosen_once():
    points = np.array([[0.5, 0.5]] * 6)
    same = Source(points=points, gains=np.arange(6.0))
    assert len(portfolio(SQUARE, [same, same], size=3)) == 1
    assert portfolio(SQUARE, [], size=3) == []


@pytest.mark.parametrize("gains", [np.zeros(9), np.linspace(-1e300, 1e300, 9)])
def test_constant_and_huge_scores(gains):
    points = np.random.default_rng(0).random((9, 2))
    assert len(portfolio(SQUARE, [Source(points=points, gains=gains)], size=3)) == 3


def test_categories_are_distinguished():
    cube = Cube({"kind": CategoricalDistribution(("a", "b")), "x": FloatDistribution(0, 1)})
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.choice([0.25, 0.75], 40), rng.random(40)])
    better = Source(points=points, gains=(points[:, 0] > 0.5) - 0.1 * points[:, 1])
    assert {better.points[at][0] for _, at in portfolio(cube, [better], size=3)} == {0.75}

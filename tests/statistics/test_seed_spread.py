"""The variance components of crossed seeds and items, against their formulas and on simulated scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hpotune.statistics.score_table import Floats, table_of_items
from hpotune.statistics.seed_spread import RepeatedSetting, SeedSpread, crossed_error, seed_spread


def setting(scores: Floats) -> RepeatedSetting:
    """Shape (seeds, items)."""
    table = table_of_items(scores)
    return RepeatedSetting(scores=table.values, parts=table.parts)


def test_components_equal_the_mean_squares() -> None:
    """The two-way table of Searle, Casella and McCulloch: (MS seeds - MS residual) / items, and the variance."""
    rng = np.random.default_rng(1)
    seeds, items = 4, 60
    scores = rng.normal(size=(seeds, items)) + rng.normal(size=items) + 0.5 * rng.normal(size=(seeds, 1))
    whole, by_seed, by_item = scores.mean(), scores.mean(axis=1), scores.mean(axis=0)
    of_seeds = items * ((by_seed - whole) ** 2).sum() / (seeds - 1)
    of_items = seeds * ((by_item - whole) ** 2).sum() / (items - 1)
    residual = ((scores - by_seed[:, None] - by_item + whole) ** 2).sum() / ((seeds - 1) * (items - 1))
    one = setting(scores)
    spread = seed_spread([one])
    assert spread.variance == pytest.approx((of_seeds - residual) / items)
    error = crossed_error(one.mean_parts, [seeds], spread)
    assert error.stderr**2 == pytest.approx((of_items + of_seeds - residual) / (seeds * items))


def test_components_are_found_again() -> None:
    rng = np.random.default_rng(2)
    found = [
        seed_spread(
            [setting(rng.normal(size=(3, 200)) + rng.normal(size=200) + 0.2 * rng.normal(size=(3, 1)))]
        )
        for _ in range(600)
    ]
    assert np.mean([one.total - one.of_items for one in found]) == pytest.approx(0.04, abs=0.005)
    assert np.mean([one.of_items for one in found]) == pytest.approx(1 / 200, rel=0.05)


def test_spread_is_pooled_and_not_negative() -> None:
    equal = RepeatedSetting(scores=np.array([0.5, 0.5]), parts=np.array([[0.1, 0.0], [0.0, 0.1]]))
    other = RepeatedSetting(scores=np.array([0.4, 0.6, 0.5]), parts=np.zeros((3, 2)))
    assert seed_spread([equal]).variance == 0.0
    pooled = seed_spread([equal, other])
    assert (pooled.degrees, pooled.total) == (3, pytest.approx(0.02 / 3))
    with pytest.raises(ValueError, match="needs two seeds"):
        seed_spread([RepeatedSetting(scores=np.array([0.5]), parts=np.zeros((1, 2)))])


def test_degrees_lie_between_seeds_and_items() -> None:
    spread = SeedSpread(total=0.01, of_items=0.0, degrees=2)
    assert crossed_error(np.zeros(3), [3], spread).degrees == pytest.approx(2)
    assert crossed_error(np.ones(3), [3], spread).degrees > 1e4
    alone = crossed_error(np.ones(3), [], spread)
    assert (alone.degrees, alone.widen()) == (math.inf, 1.0)
    assert crossed_error(np.zeros(3), [3], spread).widen() == pytest.approx(4.303 / 1.96, rel=1e-3)

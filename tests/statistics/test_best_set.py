"""The set of trials that may be the best one."""

from __future__ import annotations

import numpy as np
import pytest

from hpotune.statistics.best_set import best_set
from hpotune.statistics.score_table import table_of_errors, table_of_items


def test_set_keeps_the_truly_best() -> None:
    """100 studies of ten equal trials: a given one is left out in at most 5 %, here in at most 12 of 100."""
    rng = np.random.default_rng(0)
    kept = sum(
        0 in best_set(table_of_items(rng.normal(size=(10, 100)) + rng.normal(size=100))) for _ in range(100)
    )
    assert kept >= 88


def test_shared_items_make_it_small() -> None:
    """Trials that differ by a tenth of their own error, on the same items."""
    rng = np.random.default_rng(0)
    items = rng.normal(size=400)
    scores = items + np.array([[0.02], [0.0], [0.0]]) + 0.05 * rng.normal(size=(3, 400))
    assert best_set(table_of_items(scores)) == [0]
    errors = scores.std(axis=1) / 20
    assert sorted(best_set(table_of_errors(scores.mean(axis=1), errors))) == [0, 1, 2]


def test_far_trials_do_not_cost() -> None:
    """Step-down: trials far behind leave first, and the rest is compared as if they had not been tried."""
    near = np.array([0.9, 0.9 - 0.0245])
    few = best_set(table_of_errors(near, np.full(2, 0.01)))
    many = best_set(table_of_errors(np.append(near, np.zeros(100)), np.full(102, 0.01)))
    assert few == many


@pytest.mark.parametrize(("values", "kept"), [((1.0, 1.0), [0, 1]), ((1.0, 0.0), [0])])
def test_scores_without_error_are_compared(values: tuple[float, float], kept: list[int]) -> None:
    assert best_set(table_of_items(np.repeat([[values[0]], [values[1]]], 10, axis=1))) == kept


def test_many_trials_are_cut() -> None:
    scores = np.random.default_rng(0).normal(size=(300, 50))
    assert len(best_set(table_of_items(scores), trials=300)) <= 200

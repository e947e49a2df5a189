"""How certain it is that a trial is on the Pareto front, against formulas and a bootstrap over items."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from hpotune.statistics.pareto import dominated, front_probabilities
from hpotune.statistics.score_table import table_of_items

RNG = np.random.default_rng(0)


def test_exact_values_are_certain() -> None:
    values = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    assert front_probabilities(values, [None, None], [0, 1]).tolist() == [1, 1, 0, 1]
    assert dominated(values, np.zeros(2)).tolist() == [False, False, True, False]


def test_one_uncertain_objective_by_formula() -> None:
    """A cheaper trial keeps the front; the other one needs the better score, by a gap of one error."""
    values = np.array([[0.50, 2.0], [0.52, 1.0]])
    parts = np.diag([0.02 / np.sqrt(2), 0.02 / np.sqrt(2)])
    found = front_probabilities(values, [parts, None], [0, 1])
    assert found[0] == 1
    assert found[1] == pytest.approx(norm.cdf(1.0), abs=0.04)


def test_shared_items_make_it_certain() -> None:
    """Two trials of one error that differ in a tenth of it: paired, the better one is nearly certain."""
    items = RNG.normal(size=400)
    scores = items + np.array([[0.02], [0.0]]) + 0.05 * RNG.normal(size=(2, 400))
    table = table_of_items(scores)
    values = np.column_stack([table.values, [1.0, 2.0]])
    paired = front_probabilities(values, [table.parts, None], [0, 1])
    assert paired[0] > 0.97
    alone = np.diag([table.stderr(part) for part in table.parts])
    assert front_probabilities(values, [alone, None], [0, 1])[0] < 0.8


def test_metrics_of_a_task_move_together() -> None:
    """Both metrics fall with the same items: a trial that is behind in both stays behind in most draws of both."""
    delta = np.array([[0.0], [0.1]])
    parts = np.vstack([np.zeros(1), np.full(1, 0.1)])
    values = np.hstack([delta, delta])
    together = front_probabilities(values, [parts, parts], [0, 0])
    apart = front_probabilities(values, [parts, parts], [0, 1])
    assert together[0] == pytest.approx(norm.cdf(-1.0), abs=0.04)
    assert apart[0] == pytest.approx(1 - norm.cdf(1.0) ** 2, abs=0.04)


def test_probabilities_equal_a_bootstrap() -> None:
    items, trials = 300, 4
    scores = (
        RNG.normal(size=(2, trials, items))
        + RNG.normal(size=(1, 1, items))
        + 0.02 * np.arange(trials)[:, None]
    )
    tables = [table_of_items(one) for one in scores]
    values = np.column_stack([table.values for table in tables])
    found = front_probabilities(values, [table.parts for table in tables], [0, 0])
    counts = np.zeros(trials)
    for _ in range(2000):
        means = scores[:, :, RNG.integers(0, items, items)].mean(axis=2)
        counts += ~dominated(means.T, np.zeros(2))
    assert found == pytest.approx(counts / 2000, abs=0.06)


def test_equal_answers_share_the_front() -> None:
    scores = np.tile(RNG.integers(0, 2, 100).astype(float), (3, 1))
    table = table_of_items(scores)
    values = np.column_stack([table.values, np.ones(3)])
    assert front_probabilities(values, [table.parts, None], [0, 1]).tolist() == [1, 1, 1]

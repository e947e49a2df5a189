"""Scores with the covariance of their errors, against numpy and against a simulation of clusters."""

from __future__ import annotations

import numpy as np
import pytest

from hpotune.statistics.score_table import table_of_errors, table_of_items

RNG = np.random.default_rng(1)


def test_covariance_is_that_of_means() -> None:
    scores = RNG.normal(size=(4, 50)) + RNG.normal(size=50)
    table = table_of_items(scores[1:], scores[0])
    parts = np.vstack([table.base_parts, table.parts])
    assert parts @ parts.T == pytest.approx(np.cov(scores) / 50)
    assert table.values == pytest.approx(scores[1:].mean(axis=1))


def test_clustered_error_matches_the_spread() -> None:
    """Passages of five questions that are all right or all wrong: 40 answers, not 200."""
    clusters = np.repeat(np.arange(40), 5)
    spreads, errors = [], []
    for _ in range(300):
        scores = RNG.integers(0, 2, 40)[clusters].astype(float)[None]
        table = table_of_items(scores, clusters=clusters)
        spreads.append(table.values[0])
        errors.append(table.stderr(table.parts[0]))
    assert np.mean(errors) == pytest.approx(np.std(spreads), rel=0.1)
    plain = table_of_items(scores)
    assert plain.stderr(plain.parts[0]) < 0.6 * np.mean(errors)


def test_counts_have_a_step() -> None:
    assert table_of_items(RNG.integers(0, 2, (2, 50)).astype(float)).step == 0.02
    assert table_of_items(RNG.normal(size=(2, 50))).step == 0


def test_one_cluster_has_no_error() -> None:
    with pytest.raises(ValueError, match="needs two clusters"):
        table_of_items(np.ones((1, 3)), clusters=np.zeros(3, dtype=int))


def test_unknown_base_error_leaves_base_out() -> None:
    table = table_of_errors(np.array([0.5, 0.6]), np.array([0.1, 0.2]), 0.4, None)
    assert table.base is None
    assert [table.stderr(part) for part in table.parts] == [0.1, 0.2]
    known = table_of_errors(np.array([0.5]), np.array([0.3]), 0.4, 0.4)
    assert known.base_parts is not None
    assert known.stderr(known.parts[0] - known.base_parts) == pytest.approx(0.5)

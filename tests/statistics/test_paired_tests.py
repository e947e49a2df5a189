"""Tests of two trials on the same items, against scipy and statsmodels' formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hpotune.statistics.paired_tests import holm, paired_test, sign_changes

RNG = np.random.default_rng(0)


def test_mcnemar_is_the_binomial_test() -> None:
    base = RNG.integers(0, 2, 200).astype(float)
    better = np.where(RNG.random(200) < 0.1, 1.0, base)
    found = paired_test(better, base)
    wins, losses = int(((better - base) > 0).sum()), int(((better - base) < 0).sum())
    assert found.method == "exact McNemar"
    assert found.p_value == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)


def test_sign_changes_equal_scipy() -> None:
    delta = RNG.normal(0.3, 1, 10)
    exact = stats.permutation_test(
        (delta, np.zeros(10)),
        lambda a, b, axis: (a - b).mean(axis),
        permutation_type="samples",
        vectorized=True,
    )
    assert sign_changes(delta) == pytest.approx(exact.pvalue)
    many = RNG.normal(0.2, 1, 200)
    assert sign_changes(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.02)


def test_bootstrap_interval_is_near_normal() -> None:
    one, other = RNG.normal(0.2, 1, 400), RNG.normal(0, 1, 400)
    found = paired_test(one, other)
    error = float((one - other).std(ddof=1) / 20)
    assert found.method == "sign changes"
    assert (found.low, found.high) == pytest.approx(
        (found.value - 1.96 * error, found.value + 1.96 * error), abs=0.015
    )


def test_clusters_widen_the_interval() -> None:
    clusters = np.repeat(np.arange(20), 10)
    one = RNG.integers(0, 2, 20)[clusters].astype(float)
    other = RNG.integers(0, 2, 20)[clusters].astype(float)
    alone, clustered = paired_test(one, other), paired_test(one, other, clusters=clusters)
    assert clustered.value == pytest.approx(alone.value)
    assert clustered.high - clustered.low > 2 * (alone.high - alone.low)
    assert (alone.method, clustered.method) == ("exact McNemar", "sign changes")


def test_equal_trials_differ_by_nothing() -> None:
    found = paired_test(np.ones(5), np.ones(5))
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []

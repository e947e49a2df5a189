"""The sequential paired test: the stated error over all looks, the estimate, and the best of trials that race."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hpotune.statistics.group_sequential import SHARES, Floats, Stratum, limits, looks, paired_estimate


def differences(items: int, gap: float, disagreement: float) -> Floats:
    """Differences of two trials with right and wrong answers whose mean is `gap` exactly."""
    unequal = round(disagreement * items)
    better = round((unequal + gap * items) / 2)
    return np.repeat([1.0, -1.0, 0.0], [better, unequal - better, items - unequal])


def items_until_stop(found: Floats, error: float = 0.05) -> int | None:
    """After how many items the trial is stopped; None: never. `found`: in the order of the items."""
    shares = looks(len(found))
    for share, limit in zip(shares, limits(shares, error), strict=True):
        count = math.ceil(share * len(found))
        one = Stratum(differences=found[:count], size=len(found), weight=1.0)
        if paired_estimate([one]).statistic < limit:
            return count
    return None


def test_limits_spend_the_stated_error() -> None:
    rng, shares = np.random.default_rng(0), np.array(SHARES)
    information = shares / (1 - shares)
    steps = rng.normal(size=(200_000, len(shares))) * np.sqrt(np.diff(information, prepend=0.0))
    walks = steps.cumsum(axis=1) / np.sqrt(information)
    crossed = (walks < np.array(limits(SHARES, 0.05))).any(axis=1).mean()
    assert crossed == pytest.approx(0.05, abs=0.002)  # four standard errors


@pytest.mark.parametrize(("items", "disagreement"), [(80, 0.3), (300, 0.2), (2000, 0.02), (2000, 0.3)])
def test_equal_trials_rarely_stop(items: int, disagreement: float) -> None:
    rng, equal = np.random.default_rng(1), differences(items, 0.0, disagreement)
    stopped = [items_until_stop(rng.permutation(equal), error=0.1) is not None for _ in range(600)]
    assert 0.0 < np.mean(stopped) < 0.1 + 2 * math.sqrt(0.09 / 600)


def test_worse_trials_stop_early() -> None:
    rng, worse = np.random.default_rng(2), differences(2000, -0.08, 0.15)
    counts = [items_until_stop(rng.permutation(worse)) for _ in range(50)]
    assert all(count is not None and count <= 500 for count in counts)


def test_few_items_have_fewer_looks() -> None:
    assert looks(10_000) == SHARES
    assert looks(200) == (0.15, 0.25, 0.45, 0.7)
    assert looks(40) == ()


def test_statistic_is_that_of_mcnemar() -> None:
    found = np.repeat([1.0, -1.0, 0.0], [3, 12, 85])  # (|12 - 3| - 1) / sqrt(12 + 3), of a tenth of all items
    one = paired_estimate([Stratum(differences=found, size=1000, weight=1.0)])
    assert one.difference == pytest.approx(-0.09)
    assert one.statistic == pytest.approx(-8 / math.sqrt(15 * 0.9))
    assert one.stderr == pytest.approx(math.sqrt(0.15 / 100 * 0.9))


def test_strata_count_by_their_weights() -> None:
    small = Stratum(differences=np.array([1.0, 0.0]), size=10, weight=0.25)
    large = Stratum(differences=np.array([0.0, 0.0, -1.0, 0.0]), size=4, weight=0.75)
    found = paired_estimate([small, large])
    assert found.difference == pytest.approx(0.25 * 0.5 - 0.75 * 0.25)
    assert found.stderr == pytest.approx(0.25 * math.sqrt(0.5 / 2 * 0.8))  # of the large one nothing is left


def test_best_of_all_items_wins() -> None:
    rng, wins = np.random.default_rng(3), 0
    for _ in range(40):
        easy = rng.normal(size=1000)
        skills = rng.normal(0.0, 0.3, size=8)
        answers = (easy + skills[:, None] + rng.normal(0.0, 0.5, size=(8, 1000)) > 0).astype(float)
        order, leader = rng.permutation(1000), 0
        for trial in range(1, 8):
            if items_until_stop((answers[trial] - answers[leader])[order]) is None:
                leader = max(leader, trial, key=lambda one: answers[one].mean())
        wins += answers[leader].mean() == answers.mean(axis=1).max()
    assert wins >= 38  # of 40: the best one is lost with a probability of 0.05 at most

"""The corrected score of the best trial: coverage and level by simulation, limits by known formulas."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats

from hpotune.statistics.score_table import Floats, table_of_errors, table_of_items
from hpotune.statistics.winner import Winner, mean_of_best, truncated_normal_cdf, winner


def answers(rng: np.random.Generator, trials: int, items: int, *, better: float = 0.0) -> Floats:
    """Right and wrong answers of a base model and trials that share the items' difficulty; trial 1 is better."""
    difficulty, shared = rng.normal(size=(2, items))
    skill = np.sqrt(0.7) * shared + np.sqrt(0.3) * rng.normal(size=(trials + 1, items))
    skill[1] += better
    return (skill > difficulty).astype(np.float64)


def studies(count: int, trials: int, *, better: float = 0.0) -> Iterator[tuple[Winner, float]]:
    """The winner of each simulated study, with the true score of the trial that won."""
    rng = np.random.default_rng(trials)
    for _ in range(count):
        found = answers(rng, trials, 400, better=better)
        table = table_of_items(found[1:], found[0])
        best = int(table.values.argmax())
        yield winner(table, best), float(stats.norm.cdf(better / np.sqrt(2))) if best == 0 else 0.5


@pytest.mark.parametrize("trials", [2, 30])
def test_equal_trials_are_rarely_better(trials: int) -> None:
    """Binomial bounds of 300 studies around 95 % coverage and a level of 5 %, each with a probability above 0.999."""
    found = [*studies(300, trials)]
    assert sum(bool(one.better) for one, _ in found) <= 30
    assert 270 <= sum(one.score.low <= truth <= one.score.high for one, truth in found) <= 298
    assert 110 <= sum(one.score.value > truth for one, truth in found) <= 190
    naive = sum(abs(one.score.observed - truth) < 1.96 * 0.025 for one, truth in found)
    assert trials == 2 or naive < 270


def test_clearly_better_trial_is_found() -> None:
    found = [*studies(100, 30, better=0.4)]
    assert sum(bool(one.better) for one, _ in found) > 90


def test_lone_winner_is_not_corrected() -> None:
    """Others far behind leave the ordinary interval; so does a single trial."""
    table = table_of_errors(np.array([0.9, 0.2, 0.1]), np.full(3, 0.05))
    alone = winner(table_of_errors(np.array([0.9]), np.array([0.05])), 0).score
    for one in (winner(table, 0).score, alone):
        assert one.value == pytest.approx(0.9, abs=1e-6)
        assert (one.low, one.high) == pytest.approx((0.9 - 1.96 * 0.05, 0.9 + 1.96 * 0.05), abs=0.004)


def test_equal_scores_have_an_answer() -> None:
    ones = np.ones((3, 10))
    assert winner(table_of_items(ones, ones[0]), 1).score.low == 1
    assert winner(table_of_items(np.tile([0.0, 1.0], (3, 10))), 1).score.high > 0.5


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 2.0), (-np.inf, 1.0), (6.0, 9.0), (-40.0, -30.0), (30.0, np.inf)]
)
def test_truncated_cdf_equals_scipy(low: float, high: float) -> None:
    x = float(np.clip(low + 0.05 if np.isfinite(low) else high - 0.05, -39.9, 39.9))
    expected = stats.truncnorm.cdf(x, low, high)
    assert truncated_normal_cdf(x, 0.0, 1.0, low, high) == pytest.approx(expected, rel=1e-6)


def test_equal_scores_without_items() -> None:
    found = winner(table_of_errors(np.array([0.56, 0.56, 0.55]), np.full(3, 0.005), 0.553, 0.005), 0)
    assert found.gain is not None
    for one, error in ((found.score, 0.005), (found.gain, 0.005 * 2**0.5)):
        reach = stats.norm.ppf(1 - 0.05 / 2 / 3) * error
        assert (one.low, one.value, one.high) == pytest.approx(
            (one.observed - reach, one.observed, one.observed + reach)
        )
        assert one.low < one.at_least < one.observed
    assert not found.better


def test_near_tie_has_wide_interval() -> None:
    scores = np.array([-2.749, -2.7491, *np.linspace(-6.4, -2.9, 14)])
    found = winner(table_of_errors(scores, np.full(16, 0.089)), 0).score
    assert found.value == pytest.approx(-2.749 - 1.77 * 0.089, abs=0.002)
    assert found.low < found.value < found.observed < found.high
    assert found.high == pytest.approx(-2.749 + stats.norm.ppf(1 - 0.025 / 16) * 0.089)


@pytest.mark.parametrize("trials", [2, 16, 200])
def test_mean_of_best_equals_samples(trials: int) -> None:
    highest = np.random.default_rng(0).normal(size=(20_000, trials)).max(axis=1)
    assert mean_of_best(trials) == pytest.approx(highest.mean(), abs=0.03)

"""Repeated finalists: what is claimed on simulated studies. The large simulation is scripts/bench/repeats.py."""

from __future__ import annotations

import numpy as np
import pytest

from hpotune.statistics.repeated_finalists import Choice, RepeatedFinalists, repeated_finalists
from hpotune.statistics.score_table import ScoreTable, table_of_items
from hpotune.statistics.seed_spread import RepeatedSetting

ITEMS, SEEDS = 300, 3


def study(rng: np.random.Generator, *, trials: int, own: float, better: float = 0.0) -> RepeatedFinalists:
    """The answer of a study of scores that are means; `own`: the share of an item's error that each seed keeps."""
    items = rng.normal(size=ITEMS)
    edge = items + np.sqrt(own) * rng.normal(size=(trials, ITEMS))
    edge[0] += better
    noise = np.sqrt(1 - own)
    search = table_of_items(edge + noise * rng.normal(size=edge.shape), items + rng.normal(size=ITEMS))
    finalists = [int(one) for one in np.argsort(-search.values)[:3]]
    settings = []
    for one in finalists:
        table = table_of_items(edge[one] + noise * rng.normal(size=(SEEDS, ITEMS)))
        settings.append(RepeatedSetting(scores=table.values, parts=table.parts))
    return repeated_finalists(
        settings, Choice(table=search, finalists=finalists, by_score=finalists, trials=trials)
    )


@pytest.mark.parametrize("own", [0.0, 0.5, 1.0])
def test_intervals_hold_after_the_choice(own: float) -> None:
    """Forty equal trials: coverage of the winner's score, of its gain, and the share that is said to be better."""
    rng = np.random.default_rng(5)
    found = [study(rng, trials=40, own=own) for _ in range(250)]
    winners = [one.scores[one.winner] for one in found]
    assert np.mean([one.score.low <= 0 <= one.score.high for one in winners]) > 0.9
    assert np.mean([one.gain.low <= 0 <= one.gain.high for one in winners if one.gain]) > 0.9
    assert np.mean([one.gain.at_least > 0 for one in winners if one.gain]) < 0.09


def test_better_trial_is_found() -> None:
    rng = np.random.default_rng(6)
    found = [study(rng, trials=40, own=0.0, better=0.4) for _ in range(40)]
    gains = [one.scores[one.winner].gain for one in found]
    assert np.mean([gain.at_least > 0 for gain in gains if gain]) > 0.9
    assert np.mean([len(one.may_be_best) == 1 for one in found]) > 0.8


def test_lasting_luck_is_corrected_more() -> None:
    """What a setting owes to the items comes again with each seed; what it owed to its seed does not."""
    corrections = {}
    for own in (0.0, 1.0):
        rng = np.random.default_rng(7)
        winners = [
            one.scores[one.winner].score for one in (study(rng, trials=40, own=own) for _ in range(60))
        ]
        corrections[own] = np.mean([one.observed - one.value for one in winners])
    assert corrections[1.0] > 2 * corrections[0.0]


def test_only_seeds_are_known() -> None:
    """Without errors of items the interval is that of Student's t over seeds, wider for the winner."""
    scores = [np.array([0.4, 0.5, 0.6]), np.array([0.1, 0.2, 0.3])]
    settings = [RepeatedSetting(scores=one, parts=np.zeros((3, 3))) for one in scores]
    table = ScoreTable(
        values=np.array([0.5, 0.2]), parts=np.zeros((2, 3)), base=0.1, base_parts=np.zeros(3), by_items=False
    )
    found = repeated_finalists(settings, Choice(table=table, finalists=[0, 1], by_score=[0, 1], trials=9))
    assert (found.winner, found.spread.degrees) == (0, 4)
    one = found.scores[1]
    assert one.error.stderr == pytest.approx(0.1 / np.sqrt(3))
    assert one.score.high - one.score.observed > 2.7 * one.error.stderr
    assert one.gain is not None
    assert one.gain.observed == pytest.approx(0.1)


@pytest.mark.parametrize(("finalists", "seeds"), [(2, 2), (3, 3)])
def test_value_lies_between_the_means(finalists: int, seeds: int) -> None:
    """Of equal finalists with few seeds, it is nearer to the truth than the winner's mean, and never off the data."""
    rng, errors, covered = np.random.default_rng(8), [], []
    for _ in range(100):
        scores = rng.normal(size=(finalists, seeds))
        settings = [RepeatedSetting(scores=one, parts=np.zeros((seeds, 1))) for one in scores]
        table = ScoreTable(values=rng.normal(size=9), parts=np.zeros((9, 1)), by_items=False)
        order = list(range(finalists))
        found = repeated_finalists(settings, Choice(table=table, finalists=order, by_score=order, trials=9))
        one, best = found.scores[found.winner].score, float(scores[found.winner].mean())
        assert scores.mean() - 1e-9 <= one.value <= best + 1e-9
        errors.append((one.value**2, best**2))
        covered.append(one.low <= 0 <= one.high)
    assert np.mean([of_value for of_value, _ in errors]) < np.mean([of_mean for _, of_mean in errors])
    assert np.mean(covered) > 0.89

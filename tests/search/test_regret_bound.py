"""The regret bound holds with its stated probability, and falls with more trials."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from hpotune.search.base.history import History
from hpotune.search.base.unit_cube import Cube
from hpotune.search.regret_bound import INTERVAL, MAX_TRIALS, NEXT_TRIALS, regret_bound
from tests.search.play import Play

CUBE = Cube({name: FloatDistribution(0.0, 1.0) for name in "ab"})


def waves(points: np.ndarray, phase: float) -> np.ndarray:
    """A smooth function of two dimensions; its maximum over the cube is found on a grid."""
    return np.sin(5 * points[:, 0] + phase) + np.cos(4 * points[:, 1] * phase) * points[:, 0]


def history(points: np.ndarray, gains: np.ndarray) -> History:
    none = np.empty((0, points.shape[1]))
    n = len(gains)
    return History(
        points=points,
        gains=gains,
        stderrs=np.full(n, np.nan),
        numbers=np.arange(n),
        pending=none,
        failed=none,
    )


def seen(phase: float, *, trials: int, seed: int) -> tuple[float, float]:
    """The bound and the true regret of the best of so many random points."""
    rng = np.random.default_rng(seed)
    points = rng.random((trials, 2))
    gains = waves(points, phase)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 201)] * 2), axis=-1).reshape(-1, 2)
    found = regret_bound(CUBE, history(points, gains), rng=rng)
    assert found is not None
    return found.regret, float(waves(grid, phase).max() - gains.max())


def test_the_bound_holds_in_most_studies():
    pairs = [seen(0.5 + 0.05 * k, trials=14, seed=k) for k in range(30)]
    assert np.mean([bound >= regret for bound, regret in pairs]) >= 0.85


def test_the_bound_shrinks_as_trials_come():
    early, late = (np.mean([seen(0.5 + 0.2 * k, trials=n, seed=k)[0] for k in range(5)]) for n in (12, 60))
    assert late < early / 3


def test_bound_has_objective_units():
    rng = np.random.default_rng(0)
    points = rng.random((20, 2))
    gains = waves(points, 1.0)
    one, thousand = (
        regret_bound(CUBE, history(points, factor * gains), rng=np.random.default_rng(1))
        for factor in (1, 1000)
    )
    assert one is not None
    assert thousand is not None
    assert thousand.regret == pytest.approx(1000 * one.regret, rel=1e-3)
    assert thousand.gain == pytest.approx(1000 * one.gain, rel=1e-3)
    assert 0 <= one.gain <= one.regret
    assert one.ahead == NEXT_TRIALS


def test_exhausted_space_has_zero_bound():
    cube = Cube({name: CategoricalDistribution(["x", "y", "z", "w"]) for name in "ab"})
    points = cube.snap(np.array([[(i + 0.5) / 4, (j + 0.5) / 4] for i in range(4) for j in range(4)]))
    found = regret_bound(cube, history(points, np.arange(16.0)), rng=np.random.default_rng(0))
    assert found is not None
    assert found.gain == 0.0


@pytest.mark.parametrize("trials", [0, 5, MAX_TRIALS + 1])
def test_bound_needs_enough_trials(trials):
    rng = np.random.default_rng(0)
    assert regret_bound(CUBE, history(rng.random((trials, 2)), rng.random(trials)), rng=rng) is None


def test_of_a_constant_nothing_is_said():
    rng = np.random.default_rng(0)
    assert regret_bound(CUBE, history(rng.random((20, 2)), np.ones(20)), rng=rng) is None


def looks(play: Play) -> dict[int, dict]:
    """Regret bounds of trials, by number."""
    return {t.number: t.user_attrs["outlook"] for t in play.study.trials if "outlook" in t.user_attrs}


def played(study, *, algorithm: str, trials: int) -> Play:
    play = Play(study, algorithm=algorithm)
    for _ in range(trials):
        number, point = play.ask()
        play.tell(
            number, *(value for value in [-((point["params.x"] - 0.3) ** 2)] * len(play.study.directions))
        )
    return play


UP = {"objective": {"metric": "value", "direction": "maximize"}}
LINE = {"x": {"float": [0.0, 1.0]}}


def test_bound_falls_below_plateau(make_study):
    study = make_study(params=LINE, score=UP, budget={"trials": 200, "plateau": 1e-3})
    found = looks(played(study, algorithm="random", trials=30))
    assert [*found] == list(range(10, 30))
    assert found[29]["regret"] < 1e-3
    assert found[29]["trials"] == 29


def test_bound_without_plateau_every_tenth(make_study):
    study = make_study(params=LINE, score=UP, budget={"trials": 200})
    assert [*looks(played(study, algorithm="random", trials=25))] == [INTERVAL, 2 * INTERVAL]


def test_unsupported_studies_have_no_bound(make_study):
    two = {"objective": [{"metric": name, "direction": "maximize"} for name in ("a", "b")]}
    budget = {"trials": 200, "plateau": 1e-3}
    assert (
        looks(played(make_study(params=LINE, score=two, budget=budget), algorithm="random", trials=13)) == {}
    )
    when = LINE | {"kind": {"choice": ["a", "b"]}, "y": {"float": [0.0, 1.0], "when": {"params.kind": "a"}}}
    assert (
        looks(played(make_study(params=when, score=UP, budget=budget), algorithm="random", trials=13)) == {}
    )

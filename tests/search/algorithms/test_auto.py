"""The default search: first trials, failures, collapsed scores, categories, parallel workers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.trial import TrialState, create_trial

from hpotune.search.algorithms.auto import ALGORITHM, STARTUP_TRIALS, TPE_FROM, AutoSampler, noise_ratios
from hpotune.search.base.history import History
from hpotune.search.base.sampler import SamplerSetup, SamplingContext
from hpotune.search.base.unit_cube import Cube, Hint
from tests.search.play import Play

PARAMS = {
    "lr": {"float": [1e-6, 1e-1], "log": True, "prior": 1e-4},
    "rank": {"int": [2, 64], "prior": 8},
    "kind": {"choice": ["a", "b", "c"], "prior": "a"},
}
SPACE = {
    "lr": FloatDistribution(1e-6, 1e-1, log=True),
    "rank": IntDistribution(2, 64),
    "kind": CategoricalDistribution(("a", "b", "c")),
}


def score(point: dict) -> float:
    """Its maximum is 0 at lr 1e-3, rank 40, kind b."""
    away = (np.log10(point["params.lr"]) + 3) ** 2 + ((point["params.rank"] - 40) / 20) ** 2
    return float(away) + (0.0 if point["params.kind"] == "b" else 0.5)


def played(study, *, trials: int, seed: int = 0, values=lambda point: (score(point),)) -> list[dict]:
    play, points = Play(study, algorithm="auto", seed=seed), []
    for _ in range(trials):
        number, point = play.ask()
        points.append(point)
        play.tell(number, *values(point))
    return points


def history(n: int = 12, pending: int = 0, seed: int = 0) -> tuple[Cube, History]:
    """Of the bowl above."""
    cube, rng = Cube(SPACE, {"lr": Hint(prior=1e-4)}), np.random.default_rng(seed)
    points = cube.snap(rng.random((n, 3)))
    scores = [-score({f"params.{k}": v for k, v in cube.params(point).items()}) for point in points]
    return cube, History(
        points=points, gains=np.array(scores), stderrs=np.full(n, np.nan), numbers=np.arange(n),
        pending=cube.snap(rng.random((pending, 3))), failed=np.empty((0, 3)),
    )  # fmt: skip


def proposed(cube: Cube, known: History, *, seed: int = 0) -> np.ndarray:
    context = SamplingContext(number=40, rank=40, rng=np.random.default_rng(seed))
    return AutoSampler(SamplerSetup(space=SPACE)).propose(cube, known, context)


def test_recommended_setting_then_sobol(make_study):
    points = played(make_study(params=PARAMS), trials=STARTUP_TRIALS)
    assert points[0] == {"params.lr": 1e-4, "params.rank": 8, "params.kind": "a"}
    assert len({point["params.lr"] for point in points}) == STARTUP_TRIALS


def test_optimum_away_from_prior_found(make_study):
    points = played(make_study(params=PARAMS), trials=25)
    assert min(map(score, points)) < 0.02
    assert min(map(score, points[:STARTUP_TRIALS])) > 0.2


def test_collapsed_score_does_not_mislead(make_study):
    def values(point: dict) -> tuple[float, ...]:
        return (1e4 if point["params.lr"] > 5e-3 else score(point),)

    points = played(make_study(params=PARAMS), trials=30, values=values)
    assert min(map(score, points)) < 0.05


def test_it_learns_where_trials_fail(make_study):
    def values(point: dict) -> tuple[float, ...]:
        return () if point["params.rank"] > 32 else (score(point),)

    points = played(make_study(params=PARAMS), trials=30, values=values)
    failed = [point["params.rank"] > 32 for point in points]
    assert sum(failed[15:]) <= 5  # the score alone draws it there: its optimum has rank 40
    assert min(score(point) for point in points if point["params.rank"] <= 32) < 0.4  # 0.16 is the best


@pytest.mark.parametrize("values", [(), (1.0,), (float("nan"),)])
def test_failures_and_ties_continue(values, make_study):
    points = played(make_study(params=PARAMS), trials=12, values=lambda point: values)
    assert len({tuple(point.values()) for point in points}) == 12


def test_seed_determines_points(make_study):
    study = make_study(params=PARAMS)
    assert played(study, trials=10, seed=3) == played(study, trials=10, seed=3)
    assert played(study, trials=10, seed=3) != played(study, trials=10, seed=4)


@pytest.mark.parametrize("finished", [0, 2, 20])
def test_64_workers_get_different_points(finished, make_study):
    play = Play(make_study(params=PARAMS), algorithm="auto")
    for _ in range(finished):
        number, point = play.ask()
        play.tell(number, score(point))
    points = [tuple(play.ask()[1].values()) for _ in range(64)]
    assert len(set(points)) == 64


def test_parallel_points_equal_sequential():
    def study_of(drawn: bool) -> list[dict]:
        study = optuna.create_study(direction="minimize")
        cube, known = history(8)
        for point, gain in zip(known.points, known.gains, strict=True):
            study.add_trial(create_trial(params=cube.params(point), distributions=SPACE, value=-gain))
        blind = [study.ask() for _ in range(6)] if not drawn else []
        found = []
        for k in range(6):
            trial = blind[k] if blind else study.ask()
            frozen = study._storage.get_trial(trial._trial_id)
            found.append(AutoSampler(SamplerSetup(space=SPACE)).sample_relative(study, frozen, SPACE))
            for name, value in found[-1].items() if drawn else ():
                d = SPACE[name]
                study._storage.set_trial_param(trial._trial_id, name, d.to_internal_repr(value), d)
        return found

    together, one_by_one = study_of(False), study_of(True)
    assert together == one_by_one
    assert len({tuple(point.values()) for point in together}) == 6


def test_full_study_is_quick():
    cube, known = history(200, pending=30)
    found = proposed(cube, known)
    assert cube.snap(found[None])[0].tobytes() not in {row.tobytes() for row in known.known_points}


def test_pending_points_repel():
    for seed in range(3):
        cube, known = history(6, seed=seed)
        first = proposed(cube, known)
        second = proposed(cube, known.with_pending(first))
        assert np.abs(first - second).max() > 0.03


def test_eight_workers_points_lie_apart():
    cube, known = history(6)
    sampler = AutoSampler(SamplerSetup(space=SPACE))
    for k in range(8):
        context = SamplingContext(number=6 + k, rank=6 + k, rng=np.random.default_rng(k))
        known = known.with_pending(sampler.propose(cube, known, context))
    apart = np.abs(known.pending[:, None] - known.pending[None]).max(axis=2)
    assert apart[~np.eye(8, dtype=bool)].min() > 0.01  # were pending points not seen: 1e-3 and less


def test_prior_attracts_and_fades():
    cube = Cube(SPACE, {"lr": Hint(prior=1e-5)})
    sampler = AutoSampler(SamplerSetup(space=SPACE))
    empty = history(0)[1]
    contexts = [SamplingContext(number=k, rank=k, rng=np.random.default_rng(k)) for k in range(64)]
    lr = np.array([sampler.propose(cube, empty, context)[0] for context in contexts])
    assert np.mean(np.abs(lr[1::2] - 0.2) < 0.25) > 0.7
    assert np.mean(np.abs(lr[::2] - 0.2) < 0.25) < 0.6  # every second point is even over the whole range: .45


def test_noise_ratios_are_relative():
    known = history(4)[1]
    assert noise_ratios(known).tolist() == [1, 1, 1, 1]
    uneven = History(
        points=known.points, gains=known.gains, stderrs=np.array([0.1, 0.1, 0.2, np.nan]), numbers=known.numbers,
        pending=known.pending, failed=known.failed,
    )  # fmt: skip
    assert noise_ratios(uneven) == pytest.approx([1, 1, 4, 1])


@pytest.mark.parametrize(
    "setup", [SamplerSetup(conditional=True), SamplerSetup(objectives=2), SamplerSetup(number=TPE_FROM)]
)
def test_tpe_replaces_model(setup):
    assert isinstance(ALGORITHM.make(setup), TPESampler)
    assert isinstance(ALGORITHM.make(SamplerSetup()), AutoSampler)


def test_violated_constraints_count_as_failed():
    study = optuna.create_study(direction="minimize")
    cube, known = history(20)
    for point in known.points:
        params = cube.params(point)
        excess = [params["rank"] - 32]
        study.add_trial(
            create_trial(
                params=params, distributions=SPACE, value=-float(params["rank"]),
                system_attrs={"constraints": excess}, state=TrialState.COMPLETE,
            )
        )  # fmt: skip
    trial = study._storage.get_trial(study.ask()._trial_id)
    found = AutoSampler(SamplerSetup(space=SPACE)).sample_relative(study, trial, SPACE)
    assert found["rank"] <= 40  # the score alone says 64


def test_an_ask_imports_no_torch():
    code = (
        "import sys, optuna\n"
        "from hpotune.search.algorithms.auto import AutoSampler\n"
        "study = optuna.create_study(sampler=AutoSampler())\n"
        "study.optimize(lambda t: t.suggest_float('x', 0, 1) + t.suggest_int('k', 1, 5), n_trials=9)\n"
        "assert 'scipy' in sys.modules\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class TestAutoIsAnOptunaSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return AutoSampler

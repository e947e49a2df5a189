"""The space of a study file in the unit cube: measures, order, priors, conditions, constraints."""

from __future__ import annotations

import math

import numpy as np
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from hpotune.errors import StudyFileError
from hpotune.search import propose
from hpotune.search.algorithms.registry import check_algorithm
from hpotune.search.base.history import CONSTRAINTS_KEY, history_of
from hpotune.search.base.storage_view import SearchView
from hpotune.search.base.unit_cube import Cube, distribution
from hpotune.search.propose import feasible_share
from hpotune.search.sampler_setup import sampler_setup
from tests.search.play import Play

EVERYWHERE = ["random", "tpe", "sobol", "auto"]
NESTED = {
    "optimizer": {"choice": ["adam", "sgd"]},
    "nesterov": {"choice": [True, False], "when": {"params.optimizer": "sgd"}},
    "momentum": {"float": [0.1, 0.9], "when": {"params.nesterov": True}},
    "double": {"expr": "2 * params.momentum", "when": {"params.nesterov": True}},
    "late": {"int": [1, 4], "when": {"params.size": [8, 16]}},
    "size": {"expr": "2 ** params.power"},
    "power": {"int": [1, 4]},
}


def points(study, algorithm: str, *, trials: int = 16, seed: int = 0) -> list[dict]:
    """Points of trials in a row; the values are linear in the point."""
    play, found = Play(study, algorithm=algorithm, seed=seed), []
    for _ in range(trials):
        number, point = play.ask()
        found.append(point)
        play.tell(number, float(sum(value for value in point.values() if isinstance(value, (int, float)))))
    return found


def test_normal_ranges_become_bounded_distributions(make_study):
    params = {
        "a": {"normal": [0, 1]},
        "b": {"lognormal": [0, 1]},
        "c": {"normal": [8, 2], "int": True},
        "d": {"lognormal": [1, 0.5], "int": True},
        "e": {"normal": [0.5, 0.1], "step": 0.1},
    }
    found = {r.name: distribution(r) for r in make_study(params=params).space.searched}
    assert found["params.a"] == FloatDistribution(-3, 3)
    assert found["params.b"] == FloatDistribution(math.exp(-3), math.exp(3), log=True)
    assert found["params.c"] == IntDistribution(2, 14)
    assert found["params.d"] == IntDistribution(1, 12, log=True)
    assert found["params.e"] == FloatDistribution(0.2, 0.8, step=0.1)


@pytest.mark.parametrize("algorithm", ["random", "sobol", "lhs", "halton"])
def test_even_designs_follow_a_normal_measure(algorithm, make_study):
    params = {"a": {"normal": [10, 2]}, "b": {"lognormal": [-8, 1]}, "c": {"normal": [50, 5], "int": True}}
    study = make_study(params=params, budget={"trials": 256})
    found = points(study, algorithm, trials=256)
    a = np.array([point["params.a"] for point in found])
    b = np.log([point["params.b"] for point in found])
    c = np.array([point["params.c"] for point in found])
    # a standard error of a mean of 256 is 1/16 sd; the cut at 3 sd narrows the sd by 1.3 %
    for values, mean, sd in ((a, 10, 2), (b, -8, 1), (c, 50, 5)):
        assert abs(values.mean() - mean) < 4 * sd / 16
        assert 0.8 * sd < values.std() < 1.15 * sd
    assert all(isinstance(point["params.c"], int) for point in found)


@pytest.mark.parametrize("algorithm", EVERYWHERE)
def test_normal_bounds_and_steps_hold(algorithm, make_study):
    params = {"x": {"normal": [0, 1], "low": 0}, "n": {"normal": [16, 8], "int": True, "step": 8}}
    for point in points(make_study(params=params), algorithm, trials=12):
        assert 0 <= point["params.x"] <= 3
        assert point["params.n"] in (-8, 0, 8, 16, 24, 32, 40)


def test_hints_come_from_file(make_study):
    params = {
        "rank": {"choice": [8, 16, 32], "ordered": True, "prior": 16, "confidence": "strong"},
        "plain": {"choice": [8, 16, 32]},
        "wide": {"float": [0, 1], "prior": 0.3},
        "sure": {"int": [0, 9], "prior": 3, "confidence": "medium"},
        "bell": {"lognormal": [0, 1]},
    }
    study = make_study(params=params)
    hints = sampler_setup(study, study.config).hints
    facts = {name: (h.ordered, h.prior, h.confidence, h.normal) for name, h in hints.items()}
    assert facts == {
        "params.rank": (True, 16, 0.08, None),
        "params.plain": (False, None, 0.25, None),
        "params.wide": (False, 0.3, 0.25, None),
        "params.sure": (False, 3, 0.15, None),
        "params.bell": (False, None, 0.25, (0.0, 1.0)),
    }


@pytest.mark.parametrize("algorithm", EVERYWHERE)
def test_nested_conditions_hold(algorithm, make_study):
    study = make_study(params=NESTED)
    found = points(study, algorithm, trials=30)
    for point in found:
        values = study.point(point).params
        sgd = values["optimizer"] == "sgd"
        assert ("nesterov" in values) == sgd
        assert ("momentum" in values) == (sgd and values["nesterov"])
        assert ("late" in values) == (values["size"] in (8, 16))
        if "momentum" in values:
            assert values["double"] == 2 * values["momentum"]
    assert {len(point) for point in found} >= {2, 3, 4}  # every depth was met


CONSTRAINTS_BEFORE = ["params.a * params.b <= 20", "params.a < params.b or params.kind == 'free'"]
TIGHT = {
    "a": {"int": [1, 20]},
    "b": {"float": [1, 20]},
    "kind": {"choice": ["free", "bound"]},
    "only": {"int": [1, 9], "when": {"params.kind": "bound"}},
}


@pytest.mark.parametrize("algorithm", EVERYWHERE)
def test_constraints_hold(algorithm, make_study):
    study = make_study(params=TIGHT, constraints=[*CONSTRAINTS_BEFORE, "params.only < 5"])
    found = points(study, algorithm, trials=25)
    for point in found:
        assert point["params.a"] * point["params.b"] <= 20
        assert point["params.a"] < point["params.b"] or point["params.kind"] == "free"
        assert point.get("params.only", 0) < 5
    assert len({tuple(sorted(point.items(), key=str)) for point in found}) == 25


def test_setup_knows_feasible_points(make_study):
    study = make_study(params=TIGHT, constraints=CONSTRAINTS_BEFORE)
    setup = sampler_setup(study, study.config)
    assert setup.is_feasible({"params.a": 2, "params.b": 3.0, "params.kind": "bound", "params.only": 1})
    assert not setup.is_feasible({"params.a": 3, "params.b": 2.0, "params.kind": "bound", "params.only": 1})
    assert not setup.is_feasible({"params.a": 7, "params.b": 3.0, "params.kind": "free"})


def test_feasible_share_is_estimated(make_study):
    square = {"a": {"float": [0, 1]}, "b": {"float": [0, 1]}}
    study = make_study(params=square, constraints=["params.a < params.b"])
    assert abs(feasible_share(study.space)[0] - 0.5) < 0.05
    never = make_study(params=square, constraints=["params.a > 2"])
    assert feasible_share(never.space) == (0, {0})
    one = {"a": {"int": [1, 99]}, "b": {"int": [1, 99]}}
    rare = make_study(params=one, constraints=["params.a * params.b == 9801"])  # one point of 9801
    assert 0 < feasible_share(rare.space)[0] < 0.01


def test_rare_feasible_points_are_not_refused(make_study, monkeypatch):
    """Many ranges: fewer points are computed than the search tries, and none of them is feasible."""
    monkeypatch.setattr(propose, "MOST_COMPUTED", 100_000)
    names = [f"p{n}" for n in range(40)]
    total = " + ".join(f"params.{name}" for name in names)
    rare = make_study(
        params={n: {"float": [0, 1]} for n in names}, constraints=[f"{total} < 10"]
    )  # 5 sd below
    assert feasible_share(rare.space) == (1e-5, set())
    few = {name: {"choice": [0, 1]} for name in names[:30]}
    constraints = ["params.p0 + params.p1 > 2", " + ".join(f"params.{name}" for name in few) + " >= 0"]
    assert feasible_share(make_study(params=few, constraints=constraints).space) == (1e-5, set())
    few = {name: {"choice": [0, 1]} for name in names[:4]}
    none = make_study(params=few, constraints=["params.p0 + params.p1 > 2", *["params.p2 >= 0"] * 60])
    assert feasible_share(none.space) == (0, {0})


@pytest.mark.parametrize("algorithm", EVERYWHERE)
def test_limit_violation_counts_as_failed(algorithm, make_study):
    study = make_study(params={"a": {"float": [0, 1]}, "b": {"choice": ["x", "y", "z"]}})
    play = Play(study, algorithm=algorithm)
    for _ in range(12):
        number, point = play.ask()
        id_ = play.study._storage.get_trial_id_from_study_id_trial_number(play.study._study_id, number)
        play.study._storage.set_trial_system_attr(id_, CONSTRAINTS_KEY, [point["params.a"] - 0.5, -1.0])
        play.tell(number, -point["params.a"])
    setup = sampler_setup(play.file, play.config)
    history = history_of(play.study.trials, Cube(setup.space or {}, setup.hints), play.study.direction)
    over = sum(trial.params["params.a"] > 0.5 for trial in play.study.trials)
    assert 0 < over < 12
    assert (len(history), len(history.failed)) == (12 - over, over)


def test_unseen_trial_hides_limit_violation(make_study):
    play = Play(make_study(), algorithm="random")
    number, _ = play.ask()
    storage, id_ = play.study._storage, play.study._study_id
    storage.set_trial_system_attr(
        storage.get_trial_id_from_study_id_trial_number(id_, number), CONSTRAINTS_KEY, [1.0]
    )
    play.tell(number, 0.0)
    for unseen, shown in ((frozenset({number}), {}), (frozenset(), {"0": 1.0})):
        (trial,) = SearchView(storage, unseen=unseen).get_all_trials(id_)
        assert {str(key): value for key, value in trial.constraints.items()} == shown


def test_unsupported_limits_are_refused(make_study):
    score = {
        "objective": {"metric": "value", "direction": "minimize"},
        "constraints": [{"metric": "memory", "max": 1}],
    }
    study = make_study(score=score, search={"algorithm": "cmaes"})
    with pytest.raises(
        StudyFileError,
        match=r"study.yaml:\d+: .*does not support constraints known only after a trial \(score.c",
    ):
        check_algorithm(study, sampler_setup(study, study.config))


def test_tpe_respects_limits(make_study):
    study = make_study(params={"a": {"float": [0, 1]}}, budget={"trials": 60})
    found = {}
    for limited in (True, False):
        play = Play(study, algorithm="tpe", seed=1)
        drawn = []
        for _ in range(50):
            number, point = play.ask()
            drawn.append(point["params.a"])
            if limited:
                id_ = play.study._storage.get_trial_id_from_study_id_trial_number(
                    play.study._study_id, number
                )
                play.study._storage.set_trial_system_attr(id_, CONSTRAINTS_KEY, [point["params.a"] - 0.4])
            play.tell(number, -point["params.a"])  # the best lies at 1, beyond the limit
        found[limited] = float(np.median(drawn[20:]))
    assert found[True] < 0.55
    assert found[False] > 0.8

"""Every algorithm: valid points of any space it supports, none twice, the same for a seed; refusals."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hpotune.errors import StudyFileError
from hpotune.search.algorithms.registry import MODULES, algorithm, check_algorithm
from hpotune.search.base.unit_cube import Axis, decode
from hpotune.search.sampler_setup import sampler_setup
from tests.search.play import Play

MIXED = {
    "lr": {"float": [1e-5, 1e-1], "log": True, "prior": 1e-3},
    "drop": {"float": [0.0, 0.5], "step": 0.1},
    "rank": {"int": [2, 256], "log": True},
    "layers": {"int": [3, 9], "step": 3},
    "modules": {"choice": [["q", "v"], "all"], "prior": "all"},
    "optimizer": {"choice": ["sgd", "adam"]},
    "momentum": {"float": [0.5, 0.99], "when": {"params.optimizer": "sgd"}},
    "alpha": {"expr": "2 * params.rank"},
}

FREE = [name for name in MODULES if algorithm(name).conditions and algorithm(name).categories]
"""Algorithms that take any space."""


def check(study) -> None:
    check_algorithm(study, sampler_setup(study, study.config))


def drawn(study, algorithm: str, *, trials: int = 14, seed: int = 0) -> list[dict]:
    """Trials in a row, scored by something with an optimum."""
    play, points = Play(study, algorithm=algorithm, seed=seed), []
    for _ in range(trials):
        number, point = play.ask()
        points.append(point)
        play.tell(number, abs(np.log10(point["params.lr"]) + 3) if "params.lr" in point else 0.0)
    return points


@pytest.mark.parametrize("algorithm", sorted(FREE))
def test_points_are_valid(algorithm, make_study):
    study = make_study(params=MIXED)
    for point in drawn(study, algorithm):
        assert 1e-5 <= point["params.lr"] <= 1e-1
        assert round(point["params.drop"] * 10) in range(6)
        assert point["params.rank"] in range(2, 257)
        assert point["params.layers"] in (3, 6, 9)
        assert point["params.modules"] in (["q", "v"], "all")
        assert ("params.momentum" in point) == (point["params.optimizer"] == "sgd")
        assert study.point(point).params["alpha"] == 2 * point["params.rank"]


def test_a_condition_may_read_an_expression(make_study):
    params = {
        "rank": {"int": [1, 4]},
        "wide": {"expr": "2 * params.rank"},
        "root": {"expr": "1 / (params.rank - 2)"},
        "drop": {"float": [0.0, 0.5], "when": {"params.wide": 8}},
        "lr": {"float": [1e-5, 1e-1]},
    }
    study = make_study(params=params)
    points = drawn(study, "random")
    assert {("params.drop" in point) == (point["params.rank"] == 4) for point in points} == {True}
    wide = next(point for point in points if point["params.rank"] == 4)
    assert study.point(wide).params["drop"] == wide["params.drop"]


@pytest.mark.parametrize("algorithm", sorted(FREE))
def test_same_seed_repeats_points(algorithm, make_study):
    study = make_study(params=MIXED)
    assert drawn(study, algorithm, seed=3) == drawn(study, algorithm, seed=3)


@pytest.mark.parametrize("algorithm", sorted(FREE))
def test_another_seed_gives_other_points(algorithm, make_study):
    study = make_study(params=MIXED)
    assert drawn(study, algorithm, seed=3, trials=2) != drawn(study, algorithm, seed=4, trials=2)


WHOLE = {"a": {"int": [1, 3]}, "b": {"int": [1, 4]}}
KINDS = {"a": {"choice": ["x", "y", "z"]}, "b": {"int": [1, 4]}}
CUBE = {name: {"float": [0.0, 1.0]} for name in "abc"}
TAKES = {
    "whole": [(name, WHOLE) for name in MODULES if not algorithm(name).assign_lineage],
    "kinds": [
        (name, KINDS) for name in MODULES if algorithm(name).categories and not algorithm(name).assign_lineage
    ],
}
"""A trial that continues from another one may keep its values: tests/search/algorithms/test_pbt.py."""
OPTIONS = {"grid": {"points": 8}}
"""Options without which an algorithm refuses a space."""


def asked(play: Play, trials: int, *, workers: int) -> list[tuple]:
    """Points in a row; a trial gets its result when so many run."""
    running, points = [], []
    for _ in range(trials):
        number, point = play.ask()
        points.append(tuple(point.items()))
        running.append((number, point))
        if len(running) >= workers:
            done, seen = running.pop(0)
            play.tell(done, *([] if done % 5 == 4 else [float(len(str(seen)) + sum(_numbers(seen)))]))
    return points


def _numbers(point: dict) -> list[float]:
    return [value for value in point.values() if isinstance(value, (int, float))]


@pytest.mark.parametrize("workers", [1, 4, 12])
@pytest.mark.parametrize(
    ("name", "params"),
    TAKES["whole"] + TAKES["kinds"],
    ids=lambda x: x if isinstance(x, str) else str(x["a"]),
)
def test_points_are_not_repeated(name, params, workers, make_study):
    study = make_study(params=params, budget={"trials": 12, "parallel": workers})
    assert len(set(asked(Play(study, algorithm=name), 12, workers=workers))) == 12


@pytest.mark.parametrize("name", MODULES)
def test_64_workers_get_different_points(name, make_study):
    study = make_study(params=CUBE, budget={"trials": 100, "parallel": 64})
    play = Play(study, algorithm=name, options=OPTIONS.get(name))
    assert len(set(asked(play, 64, workers=65))) == 64


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("name", MODULES)
def test_seed_option_repeats_points(name, workers, make_study):
    study = make_study(params=CUBE, budget={"trials": 20, "parallel": workers})
    one, same = (
        asked(Play(study, algorithm=name, seed=3, options=OPTIONS.get(name)), 20, workers=workers)
        for _ in range(2)
    )
    assert one == same


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (CategoricalDistribution(("a", "b", "c", "d")), ["a", "b", "c", "d"]),
        (IntDistribution(1, 4), [1, 2, 3, 4]),
        (IntDistribution(2, 8, step=2), [2, 4, 6, 8]),
        (FloatDistribution(0.0, 1.5, step=0.5), [0.0, 0.5, 1.0, 1.5]),
    ],
)
def test_sections_of_values_are_equal(distribution, values):
    found = [Axis(name="x", distribution=distribution).value(unit) for unit in np.arange(0.5, 400) / 400]
    assert [found.count(value) for value in values] == [100] * 4


@pytest.mark.parametrize("unit", [0.0, 1 - 2**-30])
@pytest.mark.parametrize(
    "distribution",
    [
        FloatDistribution(1e-6, 1e-2, log=True),
        FloatDistribution(-1.0, 1.0),
        FloatDistribution(0.0, 0.3, step=0.1),
        IntDistribution(1, 256, log=True),
    ],
)
def test_unit_interval_bounds_are_valid(distribution, unit):
    assert distribution.low <= Axis(name="x", distribution=distribution).value(unit) <= distribution.high


def test_priors_are_encoded(make_study):
    study = make_study(params=MIXED)
    hints = sampler_setup(study, study.config).hints
    priors = {name: hint.prior for name, hint in hints.items() if hint.prior is not None}
    assert priors == {"params.lr": 1e-3, "params.modules": '"all"'}


def test_stored_point_is_decoded(make_study):
    study = make_study(params=MIXED)
    stored = {"params.modules": '["q", "v"]', "params.rank": 4}
    assert decode(study.space, stored) == {"params.modules": ["q", "v"], "params.rank": 4}


def test_unknown_algorithm_names_nearest(make_study):
    with pytest.raises(StudyFileError, match=r"study.yaml:\d+: search.algorithm='soboll'.*'sobol'"):
        check(make_study(search={"algorithm": "soboll"}))


def test_unknown_option_is_refused(make_study):
    with pytest.raises(
        StudyFileError,
        match=r"study.yaml:\d+: search.options.startups is not an option of tpe; did you mean .n_startup_trials",
    ):
        check(make_study(search={"algorithm": "tpe", "options": {"startups": 3}}))


def test_cmaes_refuses_two_objectives(make_study):
    two = {"objective": [{"metric": name, "direction": "minimize"} for name in ("a", "b")]}
    with pytest.raises(StudyFileError, match="does not support several objectives"):
        check(make_study(search={"algorithm": "cmaes"}, score=two))

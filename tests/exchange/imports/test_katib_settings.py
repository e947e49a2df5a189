"""Katib's algorithms, settings and early stopping as keys of a study file that hpotune accepts."""

from __future__ import annotations

from typing import Any

import pytest

from hpotune.config.schema.search_config import SearchConfig
from hpotune.exchange.imports.katib_settings import ALGORITHMS, katib_search, katib_stopping, max_failed
from hpotune.search.algorithms.registry import MODULES, algorithm


@pytest.mark.parametrize(
    ("name", "settings", "search"),
    [
        ("random", {"random_state": "7"}, {"algorithm": "random", "seed": 7}),
        ("grid", {}, {"algorithm": "grid"}),
        ("tpe", {"n_EI_candidates": "30", "random_state": "1"},
         {"algorithm": "tpe", "seed": 1, "options": {"n_ei_candidates": 30}}),
        ("multivariate-tpe", {"n_startup_trials": "5"}, {"algorithm": "tpe", "options": {"n_startup_trials": 5}}),
        ("bayesianoptimization", {"n_initial_points": "4", "base_estimator": "GP", "acq_func": "EI"},
         {"algorithm": "gp", "options": {"n_startup": 4}}),
        ("cmaes", {"restart_strategy": "none"}, {"algorithm": "cmaes"}),
        ("sobol", {}, {"algorithm": "sobol"}),
        ("hyperband", {"r_l": "27", "eta": "3", "resource_name": "epochs"},
         {"algorithm": "hyperband", "pruner_options": {"eta": 3}, "rungs": [0.037037, 0.111111, 0.333333, 1]}),
        ("pbt", {"n_population": "8", "truncation_threshold": "0.25", "suggestion_trial_dir": "/x"},
         {"algorithm": "pbt",
          "options": {"resample": 0, "factors": [0.8, 1.2], "population": 8, "quantile": 0.25}}),
        ("pbt", {"resample_probability": "0.3"},
         {"algorithm": "pbt", "options": {"resample": 0.3, "factors": [0.8, 1.2]}}),
    ],
)  # fmt: skip
def test_settings_become_search(name: str, settings: dict[str, Any], search: dict[str, Any]) -> None:
    found = katib_search(name, settings)
    assert (dict(found.search), found.refused) == (search, ())
    config = SearchConfig.model_validate(search)
    assert set(config.options) <= set(algorithm(config.algorithm).options)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("enas", {}, "algorithm enas: is no search of hpotune"),
        ("tpe", {"gamma": "0.2"}, "tpe: gamma=0.2: is no setting of hpotune"),
        ("tpe", {"candidates": "3"}, "tpe: unknown setting 'candidates'"),
        ("sobol", {"random_state": "3"}, "sobol: unknown setting 'random_state'; it has none"),
        ("random", {"random_state": "x"}, "needs a whole number"),
        ("bayesianoptimization", {"acq_func": "LCB"}, "acq_func=LCB: hpotune has EI only"),
        ("hyperband", {"r_l": "9"}, "needs r_l above 1 and resource_name together"),
    ],
)
def test_settings_without_equivalent_are_named(name: str, settings: dict[str, Any], said: str) -> None:
    (line,) = katib_search(name, settings).refused
    assert said in line


def test_every_algorithm_is_known() -> None:
    assert set(ALGORITHMS.values()) <= set(MODULES)


def test_medianstop_becomes_median() -> None:
    found = katib_stopping("medianstop", {"min_trials_required": "2", "start_step": "6"})
    assert found.search == {"pruner": "median", "pruner_options": {"n_startup_trials": 2}}
    assert (found.start_step, found.refused) == (6, ())
    assert katib_stopping("medianstop", {}).search["pruner_options"] == {"n_startup_trials": 3}
    SearchConfig.model_validate(found.search)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("mean", {}, "valid: medianstop"),
        ("medianstop", {"min_trials": 1}, "unknown setting 'min_trials'"),
        ("medianstop", {"start_step": "0"}, "needs a whole number of at least 1"),
    ],
)
def test_wrong_stopping_is_named(name: str, settings: dict[str, Any], said: str) -> None:
    assert said in katib_stopping(name, settings).refused[0]


def test_failed_trials_are_counted_alike() -> None:
    assert [max_failed(count) for count in (0, 1, 3)] == [0, 0, 2]

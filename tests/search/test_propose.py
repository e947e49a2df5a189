"""The point of a trial: new, feasible, complete after its worker was lost, and different from those of others."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from hpotune.search.assign import ANNOUNCED_KEY, _conflict
from tests.search.play import Play

LETTERS = {"x": {"choice": ["a", "b", "c", "d"]}}


@pytest.mark.parametrize("algorithm", ["grid", "random", "auto", "tpe"])
def test_interrupted_trial_keeps_its_point(algorithm, make_study):
    play = Play(make_study(params=LETTERS, budget={"trials": 4}), algorithm=algorithm)
    number, first = play.ask()
    storage = play.study._storage
    id_ = storage.get_trial_id_from_study_id_trial_number(play.study._study_id, number)
    storage.set_trial_state_values(id_, TrialState.WAITING)
    others = [play.ask()[1]["params.x"] for _ in range(3)]
    assert sorted([first["params.x"], *others]) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("params", [{"x": {"choice": ["only"]}}, {"y": 3}])
def test_single_point_space_repeats(params, make_study):
    play = Play(make_study(params=params, budget={"trials": 12, "plateau": 0.1}), algorithm="tpe")
    for _ in range(12):
        number, _ = play.ask()
        play.tell(number, float(number))
    assert len(play.study.trials) == 12


def test_tight_constraints_are_satisfied(make_study):
    params = {name: {"float": [0.0, 1.0]} for name in "xyz"}
    corner = [f"params.{name} < 0.1" for name in "xyz"]
    play = Play(make_study(params=params, constraints=corner), algorithm="random")
    points = [play.ask()[1] for _ in range(8)]
    assert all(value < 0.1 for point in points for value in point.values())


def test_half_written_point_is_completed(make_study):
    params = {"x": {"float": [0.0, 1.0], "prior": 0.5}, "y": {"float": [0.0, 1.0], "prior": 0.25}}
    play = Play(make_study(params=params), algorithm="random")
    storage = play.study._storage
    id_ = storage.create_new_trial(play.study._study_id)
    storage.set_trial_system_attr(id_, ANNOUNCED_KEY, {"params.x": 0.5, "params.y": 0.25})
    storage.set_trial_param(id_, "params.x", 0.5, FloatDistribution(0.0, 1.0))
    assert play.resumed(id_) == {"params.x": 0.5, "params.y": 0.25}


def test_announced_point_is_a_conflict():
    study = optuna.create_study()
    one, other = study.ask(), study.ask()
    point = {"x": 0.5, "y": 0.25}
    seen = []
    for step in ({ANNOUNCED_KEY: point}, {"x": 0.5}, {"y": 0.25}):
        for name, value in step.items():
            if name == ANNOUNCED_KEY:
                study._storage.set_trial_system_attr(one._trial_id, name, value)
            else:
                study._storage.set_trial_param(one._trial_id, name, value, FloatDistribution(0.0, 1.0))
        seen.append(_conflict(study, study.trials[other.number], point, since=0))
    assert seen == ["lower"] * 3
    elsewhere = {"x": 0.1, "y": 0.1}
    study._storage.set_trial_system_attr(other._trial_id, ANNOUNCED_KEY, elsewhere)
    assert _conflict(study, study.trials[one.number], elsewhere, since=0) == "higher"
    assert _conflict(study, study.trials[other.number], point, since=other.number) == ""

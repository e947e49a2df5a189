"""Values of choices and ranges come out of a real store with their own type, whatever Python holds equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from hpotune.config.load import Study
from hpotune.search.assign import assign_point
from hpotune.search.base.unit_cube import decode
from hpotune.storage.backends.connect import connect
from hpotune.storage.readers.trial_record import choice_options, row_of
from hpotune.storage.trials.study_trials import record_of
from tests.search.play import Play


def first(study: Study) -> object:
    """The value of params.x of the first trial."""
    play = Play(study, algorithm="tpe")
    return study.point(play.ask()[1]).params["x"]


EQUAL = [
    [1, True],
    [1, 1.0, 2],
    [0, False, -0.0, 0.0],
    ["1", 1, True, None],
    [[1, 2], [1.0, 2], [True, 2]],
    [{"a": 1}, {"a": True}],
    [["x"], "x", '["x"]'],
    [1, 2.5],
]


def drawn(study: Study, folder: Path, *, trials: int) -> list[object]:
    """Values of params.x of the trials, read back from an SQLite file opened anew."""
    url = f"sqlite:///{folder}/store.db"
    storage = connect(url)
    id_ = optuna.create_study(study_name="bowl", storage=storage, directions=["minimize"])._study_id
    for _ in range(trials):
        trial = storage.get_trial(storage.create_new_trial(id_))
        assign_point(storage, study, study.config, trial)
        storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.COMPLETE, [0.5])
    read = connect(url).get_all_trials(id_)
    rows = [row_of(record_of(trial), choice_options(study.space)) for trial in read]
    decoded = [decode(study.space, trial.params) for trial in read]
    assert repr([dict(row.params) for row in rows]) == repr(decoded)
    return [study.point(values).params["x"] for values in decoded]


@pytest.mark.parametrize(
    ("algorithm", "choices"), [("random", EQUAL[0]), *(("grid", choices) for choices in EQUAL)]
)
def test_each_choice_keeps_its_type(
    algorithm: str, choices: list, make_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = make_study(
        params={"x": {"choice": choices}}, search={"algorithm": algorithm},
        budget={"trials": len(choices)},
    )  # fmt: skip
    found = drawn(study, tmp_path, trials=len(choices))
    assert sorted(map(repr, found)) == sorted(map(repr, choices))


STARTS = [
    ({"choice": [1, True]}, True, True),
    ({"choice": [1, 1.0]}, 1.0, 1.0),
    ({"choice": [2, True]}, 2.0, 2),
    ({"int": [1, 9]}, 3.0, 3),
    ({"float": [1, 9]}, 3, 3.0),
    ({"float": [0, 1], "step": 0.5}, 1, 1.0),
]


@pytest.mark.parametrize(("given", "start", "value"), STARTS)
def test_start_point_arrives_with_range_type(
    given: dict, start: object, value: object, make_study: Callable[..., Study]
) -> None:
    study = make_study(params={"x": given}, search={"start_from": [{"params.x": start}]})
    assert repr(first(study)) == repr(value)


@pytest.mark.parametrize(("given", "prior", "value"), STARTS)
def test_prior_arrives_with_range_type(
    given: dict, prior: object, value: object, make_study: Callable[..., Study]
) -> None:
    study = make_study(params={"x": {**given, "prior": prior}}, search={"algorithm": "tpe"})
    assert repr(first(study)) == repr(value)


def test_condition_tells_true_from_one(make_study: Callable[..., Study]) -> None:
    study = make_study(
        params={"x": {"choice": [1, True]}, "y": {"choice": [5, 6], "when": {"params.x": True}}}
    )
    assert "y" in study.point({"params.x": True, "params.y": 5}).params
    assert "y" not in study.point({"params.x": 1}).params


def test_old_equal_choices_are_read(make_study: Callable[..., Study]) -> None:
    study = make_study(params={"x": {"choice": [1, True, "a"]}})
    trial = optuna.trial.create_trial(
        params={"params.x": 1}, value=0.5,
        distributions={"params.x": optuna.distributions.CategoricalDistribution([1, True, "a"])},
    )  # fmt: skip
    assert row_of(record_of(trial), choice_options(study.space)).params == {"params.x": 1}

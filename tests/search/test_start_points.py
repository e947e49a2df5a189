"""The start points: which, in which order, and what is recommended where the file says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.config.load import Study, build_study
from hpotune.config.yaml_source import parse_source
from hpotune.search.base.unit_cube import decode
from hpotune.search.start_points import (
    START_POINTS_KEY,
    StartPoint,
    distinct_start_points,
    file_start_points,
    point_within_ranges,
    save_start_points,
    saved_start_points,
    start_points_text,
)
from tests.search.play import Play

EVERYWHERE = ["random", "tpe", "sobol", "auto"]
SPACE = {
    "lr": {"float": [1e-4, 1e-2], "log": True},
    "n": {"int": [1, 9]},
    "kind": {"choice": ["a", "b", ["c"]]},
    "size": {"choice": [8, 16, 32], "ordered": True},
    "only": {"float": [0, 1], "when": {"params.kind": "b"}},
}
FINETUNE = """\
name: s
model: {path: some/model}
data: {path: some/data}
lora:
  r: {int: [2, 64], log: true}
  lora_alpha: {int: [1, 24]}
  lora_dropout: {float: [0.0, 0.2], step: 0.05}
train:
  learning_rate: {float: [1.0e-5, 1.0e-2], log: true}
  weight_decay: {normal: [0.1, 0.02]}
  optim: {choice: [sgd, adamw_torch]}
score: {objective: {metric: eval_loss}}
search: {algorithm: auto}
budget: {trials: 20}
"""


def starts(study: Study) -> list[dict]:
    """Start points that need no other study, as Optuna stores them."""
    return [start.params for start in file_start_points(study, study.config)]


def finetune(text: str = FINETUNE) -> Study:
    return build_study(parse_source(text, path=Path("s.yaml")))


def asked(study: Study, algorithm: str, *, trials: int = 4) -> list[dict]:
    play, found = Play(study, algorithm=algorithm), []
    for _ in range(trials):
        number, point = play.ask()
        found.append(point)
        play.tell(number, 1.0)
    return found


@pytest.mark.parametrize("algorithm", EVERYWHERE)
def test_file_points_precede_prior(algorithm, make_study):
    params = {**SPACE, "n": {"int": [1, 9], "prior": 3}}
    given = [{"params.lr": 2e-4, "params.kind": ["c"], "params.n": 9, "params.size": 32}, {"params.n": 7.0}]
    found = asked(make_study(params=params, search={"start_from": given}), algorithm)
    assert found[0] == {"params.lr": 2e-4, "params.kind": ["c"], "params.n": 9, "params.size": 32}
    assert found[1]["params.n"] == 7
    assert isinstance(found[1]["params.n"], int)
    assert {"params.lr", "params.kind", "params.size"} <= found[1].keys()  # drawn
    assert found[2] == {
        "params.lr": pytest.approx(1e-3),
        "params.kind": "a",
        "params.n": 3,
        "params.size": 16,
    }
    assert found[3] not in found[:3]


@pytest.mark.parametrize("algorithm", EVERYWHERE)
def test_partial_start_point_is_completed(algorithm, make_study):
    study = make_study(
        params={"a": {"int": [1, 9]}, "b": {"int": [1, 9]}},
        constraints=["params.a + params.b == 10"],
        search={"start_from": [{"params.a": 2}, {"params.b": 3}]},
    )
    assert asked(study, algorithm, trials=2) == [
        {"params.a": 2, "params.b": 8},
        {"params.a": 7, "params.b": 3},
    ]


def test_parallel_trials_take_different_starts(make_study):
    study = make_study(
        params=SPACE, search={"start_from": [{"params.n": 1}, {"params.n": 2}, {"params.n": 3}]}
    )
    play = Play(study, algorithm="random")
    assert [play.ask()[1]["params.n"] for _ in range(3)] == [1, 2, 3]


def test_infeasible_middle_is_sampled(make_study):
    params = {"a": {"int": [1, 9], "prior": 9}, "b": {"int": [1, 9]}}
    study = make_study(params=params, constraints=["params.a + params.b <= 10"])
    assert starts(study) == [{"params.a": 9}]
    assert asked(study, "random", trials=1) == [{"params.a": 9, "params.b": 1}]


def test_function_without_priors_has_no_recommendation(make_study):
    assert starts(make_study(params=SPACE)) == []


def test_auto_starts_from_recommended_setting():
    (start,) = file_start_points(finetune(), finetune().config)
    assert start == StartPoint(
        params={
            "lora.r": 16,
            "lora.lora_alpha": 13,  # 32 lies outside: the middle
            "lora.lora_dropout": 0.05,
            "train.learning_rate": 2e-4,
            "train.weight_decay": pytest.approx(0.1),  # a normal range says itself what is believed
            "train.optim": "sgd",
        },
        origin="recommended",
    )


def test_file_prior_overrides_recommendation():
    study = finetune(FINETUNE.replace("{int: [2, 64], log: true}", "{int: [2, 64], prior: 8}"))
    (start,) = file_start_points(study, study.config)
    assert (start.params["lora.r"], start.params["train.learning_rate"], start.origin) == (
        8,
        2e-4,
        "from `prior`",
    )


def test_only_auto_gets_recommendation():
    assert starts(finetune(FINETUNE.replace("auto", "random"))) == []
    far = FINETUNE.replace("[1.0e-5, 1.0e-2]", "[1.0e-3, 1.0e-2]").replace("[2, 64]", "[32, 64]")
    assert starts(finetune(far.replace("[0.0, 0.2], step: 0.05", "[0.1, 0.2]"))) == []


def test_saved_start_points_are_used(make_study):
    study = make_study(params=SPACE, search={"start_from": [{"params.n": 1}]})
    play = Play(study, algorithm="random")
    storage, id_ = play.study._storage, play.study._study_id
    assert saved_start_points(storage, id_) is None
    assert save_start_points(
        storage, id_, [StartPoint(params={"params.n": 5}, origin="from ../old", value=0.5)]
    )
    assert not save_start_points(storage, id_, [])
    assert saved_start_points(storage, id_) == [{"params.n": 5}]
    assert play.study.user_attrs[START_POINTS_KEY] == [
        {"params": {"params.n": 5}, "of": "from ../old", "value": 0.5}
    ]
    assert play.ask()[1]["params.n"] == 5


def test_late_start_points_are_refused(make_study):
    play = Play(make_study(params=SPACE), algorithm="random")
    play.ask()
    assert not save_start_points(
        play.study._storage, play.study._study_id, [StartPoint(params={"params.n": 5}, origin="")]
    )


def test_origins_are_summarized():
    old = [
        StartPoint(params={"a": n}, origin="from ../old", value=value) for n, value in enumerate((0.61, 0.6))
    ]
    found = [*old, StartPoint(params={"a": 3}, origin="recommended"), old[0]]
    assert (
        start_points_text(distinct_start_points(found))
        == "3 start points: 2 from ../old (0.61, 0.6), 1 recommended"
    )
    assert start_points_text(old[:1]) == "1 start point: 1 from ../old (0.61)"
    assert start_points_text([]) == ""


def test_foreign_point_moves_into_ranges(make_study):
    study = make_study(params=SPACE)
    point = {"params.lr": 1.0, "params.n": 4, "params.kind": "z", "params.size": 16.0, "params.else": 3}
    found, changed = point_within_ranges(study, point)
    assert found == {"params.lr": 1e-2, "params.n": 4, "params.size": 16}
    assert set(changed) == {"params.lr", "params.kind"}
    assert decode(study.space, {"params.kind": '["c"]'}) == {"params.kind": ["c"]}

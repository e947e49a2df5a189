"""Trials ranked by the rule of a study file: conditions, numbers that were not measured, adapters."""

from __future__ import annotations

import pytest

from hpotune.config.schema.best_rule import BestRule
from hpotune.schedule.best_trials import best_trials, ranked_trials
from hpotune.schedule.ranking import by_ranked_value, measured_names, ranked_objective, rule_violations
from hpotune.schedule.retention import adapters_to_delete
from tests.fixtures.study_rows import DOWN, UP, config, row

MEMORY = {1: 50.0, 2: 30.0, 3: 10.0, 4: 20.0}
TRIED = [
    row(0, "finished", value=0.0, kind="baseline"),
    *(
        row(number, "finished", value=float(number), metrics={"gb": gb, "t/acc": -gb, "t/acc_stderr": 0.5})
        for number, gb in MEMORY.items()
    ),
    row(5, "finished", value=5.0),
    row(6, "finished", value=6.0, metrics={"gb": 1.0}, breaks=("x=1 > 0",)),
    row(7, "running"),
]


def numbers(rule: BestRule | None) -> list[int]:
    return [one.number for one in ranked_trials(DOWN, TRIED, rule)]


def test_first_objective_without_a_rule() -> None:
    assert numbers(None) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (BestRule(minimize="gb"), [3, 4, 2, 1]),
        (BestRule(maximize="t/acc"), [3, 4, 2, 1]),
        (BestRule(maximize="loss"), [5, 4, 3, 2, 1]),
        (BestRule(subject_to=["gb < 40"]), [2, 3, 4]),
        (BestRule(maximize="loss", subject_to=["gb < 40", "t/acc > -25"]), [4, 3]),
        (BestRule(minimize="gb", subject_to=["gb < 0"]), []),
    ],
)
def test_rule_ranks_what_it_allows(rule: BestRule, expected: list[int]) -> None:
    assert numbers(rule) == expected
    assert [one.number for one in best_trials(DOWN, TRIED, rule)] == expected[:1]


def test_reasons_name_the_numbers() -> None:
    rule = BestRule(minimize="gb", subject_to=["gb < 40", "1 / loss < 2"])
    assert rule_violations(DOWN, rule, TRIED[1]) == ("not gb < 40 (gb 50)",)
    assert rule_violations(DOWN, rule, TRIED[5]) == ("gb was not measured", "gb < 40: gb was not measured")
    [_, failed] = rule_violations(DOWN, rule, row(9, "finished", value=0.0, metrics={"gb": 99.0}))
    assert failed == "1 / loss < 2: cannot be computed: float division by zero"


def test_ranked_value_has_its_error() -> None:
    rule = BestRule(maximize="t/acc")
    by = ranked_objective(DOWN, rule)
    assert (by.task, by.metric, by.sense, by.label) == ("t", "acc", "maximize", "t/acc")
    ranked = by_ranked_value(DOWN, rule, TRIED)
    assert next((one.number, one.values, one.stderrs) for one in ranked) == (1, (-50.0,), (0.5,))
    assert len(ranked) == 4


def test_rule_chooses_one_of_the_front() -> None:
    tried = [row(n, "finished", value=point) for n, point in enumerate([(1.0, 1.0), (2.0, 3.0)])]
    assert len(best_trials([*DOWN, *UP], tried, None)) == 2
    assert [one.number for one in best_trials([*DOWN, *UP], tried, BestRule(maximize="value"))] == [1]


def test_adapters_follow_the_rule() -> None:
    """Where the rule allows too few, the best by the first objective fill up: the rule may be edited."""
    assert adapters_to_delete(DOWN, TRIED, BestRule(minimize="gb"), keep=2) == [0, 1, 2, 5, 6]
    assert adapters_to_delete(DOWN, TRIED, BestRule(subject_to=["gb < 15"]), keep=2) == [0, 2, 4, 5, 6]
    assert adapters_to_delete(DOWN, TRIED, BestRule(subject_to=["gb < 0"]), keep=0) == [0, 1, 2, 3, 4, 5, 6]


def test_measured_names_are_of_finished_trials() -> None:
    names = measured_names(config({"trials": 9}), TRIED)
    assert {"gb", "t/acc", "loss", "seconds", "gpu_hours"} <= names

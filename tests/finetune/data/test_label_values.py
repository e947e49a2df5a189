"""What the label column means: one class, several, or a number."""

from __future__ import annotations

import pytest

from hpotune.config.yaml_source import Value
from hpotune.finetune.data.label_values import labels_of
from hpotune.finetune.trial_errors import DataError

SEVERAL, NUMBER = "multi_label_classification", "regression"


def read(values: list[Value], problem_type: str | None, names: list[str] | None = None) -> list[Value]:
    labels = labels_of(values, problem_type=problem_type, column="label", names=names)
    return [labels.names, *map(labels.read, values)]


def test_one_class_stays_one_number() -> None:
    assert read(["b", "a", None], None) == [["a", "b"], 1, 0, None]


def test_lists_become_sorted_class_numbers() -> None:
    given: list[Value] = [["sea", "art"], [], "art", None]
    assert read(given, SEVERAL) == [["art", "sea"], [0, 1], [], [0], None]
    assert read([[2, 0], [1]], SEVERAL, names=["x", "y", "z"]) == [["x", "y", "z"], [0, 2], [1]]


def test_numbers_are_read_from_text() -> None:
    assert read([1, "2.5", "", None, -3.0], NUMBER) == [["label"], 1.0, 2.5, None, None, -3.0]


@pytest.mark.parametrize(
    ("values", "problem_type", "part"),
    [
        ([[0, 1, 0]], SEVERAL, "has a class twice; write the names or numbers of the classes of a row"),
        ([["a"], ["b"]], None, "or a list, with model.problem_type: multi_label_classification"),
        ([0.5, 1.5], None, "or model.problem_type: regression"),
        (["good"], NUMBER, "'label' has 'good', and problem_type: regression needs finite numbers"),
        ([True], NUMBER, "needs finite numbers"),
        ([None, ""], NUMBER, "no row has a number in the column 'label'"),
    ],
)
def test_wrong_labels_say_what_to_write(values: list[Value], problem_type: str | None, part: str) -> None:
    with pytest.raises(DataError) as error:
        read(values, problem_type)
    assert part in str(error.value)

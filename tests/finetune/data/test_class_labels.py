"""The names and numbers of classes, from labels as they are written."""

from __future__ import annotations

import pytest

from hpotune.finetune.data.class_labels import classes_of
from hpotune.finetune.trial_errors import DataError


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["mid", "low", "top", "low"], ["low", "mid", "top"]),
        (["red", "blue", "None", "NA", "null"], ["NA", "None", "blue", "null", "red"]),
        ([10, 2, 1, None], ["1", "2", "10"]),
        (["10", "2", "1", ""], ["1", "2", "10"]),
        ([3.0, 4.0, 3], ["3", "4"]),
        (["007", "7", "042"], ["007", "7", "042"]),
        ([True, False], ["false", "true"]),
        ([True, 1, "x"], ["1", "true", "x"]),
        (["1.0", "2.0"], ["1.0", "2.0"]),
        (["version 1.5", "version 2"], ["version 1.5", "version 2"]),
        (["0.5", "unknown"], ["0.5", "unknown"]),
        ([-1, 1], ["-1", "1"]),
    ],
)
def test_classes_are_numbered_in_order(labels, names):
    classes = classes_of(labels, column="label", names=None)
    assert classes.names == names
    numbers = [classes.number(label) for label in labels]
    assert {number for number in numbers if number is not None} == set(range(len(names)))
    assert [number is None for number in numbers] == [label in (None, "") for label in labels]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0.5, 1.0], "the column 'stars' has real numbers such as 0.5; write classes as words"),
        (["0.13", "2", "4.8"], "the column 'stars' has real numbers such as 0.13"),
        ([1, float("inf")], "a label holds an infinite number"),
        ([["a", "b"]], "a label is a list; a row needs one label"),
        ([{"a": 1}], "a label is an object"),
        ([None, ""], "no row has a label in the column 'stars'"),
    ],
)
def test_other_labels_are_refused(labels, says):
    with pytest.raises(DataError) as error:
        classes_of(labels, column="stars", names=None)
    assert str(error.value).startswith("data.columns: ")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("label", "number"),
    [(0, 0), (1, 1), (1.0, 1), ("1", 1), ("low", 1), ("top", 0), (-1, None), (None, None)],
)
def test_class_names_come_from_the_data(label, number):
    classes = classes_of([], column="label", names=["top", "low"])
    assert (classes.names, classes.number(label)) == (["top", "low"], number)


def test_class_number_is_no_name():
    classes = classes_of([], column="label", names=["1", "0"])
    assert (classes.number(1), classes.number("1")) == (1, 0)


@pytest.mark.parametrize("label", [2, "3", "absent", -2])
def test_label_without_class_is_refused(label):
    classes = classes_of([], column="label", names=["top", "low"])
    with pytest.raises(DataError, match=f"a row has the label '{label}'; the classes are top, low"):
        classes.number(label)

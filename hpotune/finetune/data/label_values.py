"""What the label column of a row means, by `model.problem_type`: one class, several classes, or a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpotune.config.schema.study_config import MULTI_LABEL, REGRESSION
from hpotune.config.yaml_source import Value
from hpotune.finetune.data.class_labels import NUMBER, Classes, classes_of
from hpotune.finetune.trial_errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """The outputs of a classifier, and how a stored label becomes what is trained."""

    names: list[str]
    """Of the classes in their order; of a regression, the column."""
    read: Callable[[Value], Value]
    """A stored label as the number of its class, a list of such numbers, or a number; None without a label."""


def labels_of(
    values: Sequence[Value], *, problem_type: str | None, column: str, names: Sequence[str] | None
) -> Labels:
    """The labels of all rows of a study's data.

    `names`: those of a ClassLabel feature. Raises: DataError as `classes_of`, and for a label of a regression that is
    no number.
    """
    if problem_type == REGRESSION:
        if all(value is None or value == "" for value in values):
            raise DataError(f"data.columns: no row has a number in the column {column!r}")
        return Labels(names=[column], read=lambda value: _number(value, column))
    if problem_type == MULTI_LABEL:
        each = [one for value in values for one in (value if isinstance(value, list) else [value])]
        classes = classes_of(each, column=column, names=names)
        return Labels(names=classes.names, read=lambda value: _numbers(value, classes))
    classes = classes_of(values, column=column, names=names)
    return Labels(names=classes.names, read=classes.number)


def _number(value: Value, column: str) -> float | None:
    """The number that a label is; None for one that is missing.

    Raises: DataError for anything else.
    """
    if value is None or value == "":
        return None
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and NUMBER.fullmatch(text):
        text = float(text)
    if isinstance(text, bool) or not isinstance(text, (int, float)) or not math.isfinite(text):
        raise DataError(
            f"data.columns: the column {column!r} has {value!r}, and problem_type: regression needs finite numbers"
        )
    return float(text)


def _numbers(value: Value, classes: Classes) -> list[Value] | None:
    """The class numbers of a row, in their order; none of an empty list; None for a label that is missing.

    Raises: DataError for a class that a row has twice.
    """
    if not isinstance(value, list):
        number = classes.number(value)
        return None if number is None else [number]
    found = [number for number in map(classes.number, value) if number is not None]
    if len(set(found)) < len(found):
        raise DataError(
            f"data.columns: the label {value!r} has a class twice; write the names or numbers of the classes of a row, "
            "not 0 or 1 for each class"
        )
    return [*sorted(found)]

"""The classes of a classification: their names and their numbers, from the labels as they are written.

A label's name is its text: a cell or string letter by letter, a whole number its digits, true and false. The order of
the classes is that of a ClassLabel feature, else by number if all names are numbers, else alphabetical.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hpotune.config.rows.row_template import NotText, kind_of, value_text
from hpotune.config.yaml_source import Value
from hpotune.finetune.trial_errors import DataError

NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
UNLABELLED = -1
"""The class number of a row without a label in the datasets of the Hugging Face hub."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Classes:
    """The names of the classes, in the order in which they are numbered."""

    names: list[str]
    by_number: bool
    """Whether labels are stored as class numbers."""

    def number(self, label: Value) -> int | None:
        """The class number of a label as it is stored; None for a label that is missing or empty.

        Raises: DataError for a label that is no class.
        """
        name = label_name(label)
        if name is None:
            return None
        if name in self.names and (isinstance(label, str) or not self.by_number):
            return self.names.index(name)
        if self.by_number and NUMBER.fullmatch(name) and UNLABELLED <= float(name) < len(self.names):
            return None if float(name) == UNLABELLED else int(name)
        raise DataError(
            f"data.columns: a row has the label {name!r}; the classes are {', '.join(self.names)}"
        )


def classes_of(labels: Sequence[Value], *, column: str, names: Sequence[str] | None) -> Classes:
    """The classes of all rows of a study's data.

    `names`: those of a ClassLabel feature.
    Raises: DataError for labels that are real numbers, objects or lists, or if there is none.
    """
    if names is not None:
        return Classes(names=list(names), by_number=True)
    found = {name for name in map(label_name, labels) if name is not None}
    if not found:
        raise DataError(f"data.columns: no row has a label in the column {column!r}")
    real = next((name for name in sorted(found) if _is_real(name)), None)
    if real is not None and all(NUMBER.fullmatch(name) for name in found):
        raise DataError(
            f"data.columns: the column {column!r} has real numbers such as {real}; write classes as words or "
            "whole numbers, or model.problem_type: regression"
        )
    return Classes(names=_sorted_names(found), by_number=False)


def label_name(label: Value) -> str | None:
    """The name of the class that a label is; None for a label that is missing or empty.

    Raises: DataError for an object or a list.
    """
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    if isinstance(label, (dict, list)):
        raise DataError(
            f"data.columns: a label is {kind_of(label)}; a row needs one label: text or a whole number (or a "
            "list, with model.problem_type: multi_label_classification)"
        )
    try:
        return value_text(label) or None
    except NotText as error:
        raise DataError(f"data.columns: a label {error}") from error


def _is_real(name: str) -> bool:
    return NUMBER.fullmatch(name) is not None and not float(name).is_integer()


def _sorted_names(names: set[str]) -> list[str]:
    if all(NUMBER.fullmatch(name) and math.isfinite(float(name)) for name in names):
        return sorted(names, key=lambda name: (float(name), name))
    return sorted(names)

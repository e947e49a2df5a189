"""The rows of a study: loaded, shuffled with its seed, and split; tokenization.py makes tokens of them.

Every subset is taken after shuffling, a slice such as train[:1000] too: public datasets are often sorted by label.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from hpotune.config.rows.prompt_columns import LABEL as LABEL
from hpotune.config.rows.prompt_columns import column_mistakes, missing_and_empty, renamed_row
from hpotune.config.rows.row_table import RowTable, same_class_numbers
from hpotune.config.rows.text_encoding import DataFileError
from hpotune.config.schema.study_config import MULTI_LABEL, REGRESSION, DataConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.data.data_source import split_table
from hpotune.finetune.data.label_values import Labels, labels_of
from hpotune.finetune.trial_errors import DataError

SLICE = re.compile(r"(?P<split>[\w.]+)\[(?P<low>-?\d*)(?P<low_unit>%?):(?P<high>-?\d*)(?P<high_unit>%?)\]")

LABELS_AT_ONCE = 4096  # rows whose labels are read at once


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRow:
    """One row as it is stored, with its columns under the names that prompts expect."""

    number: int
    """Its position in its split as it is stored, from 0."""
    values: dict[str, Value]
    source: str = ""
    """Its source in data.mixture; empty without a mixture."""


Rows = list[DataRow]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSplit:
    """The training and validation rows of a study; the same for all its trials."""

    train: Rows
    validation: Rows
    labels: list[str] = field(default_factory=list)
    """The names of the classes, in the order in which rows are numbered; empty for a language model."""
    warnings: list[str] = field(default_factory=list)
    """What is missing or empty in how many rows, and a classification with one class."""

    def of_source(self, name: str) -> DataSplit:
        """The rows of one source of the mixture."""
        return replace(
            self,
            train=[row for row in self.train if row.source == name],
            validation=[row for row in self.validation if row.source == name],
        )

    @property
    def num_labels(self) -> int:
        """Classes of a classification; 0 for a language model."""
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Rows of a split."""

    table: RowTable
    positions: NDArray[np.int64]
    """Of the rows in the table."""


def load_rows(
    config: DataConfig,
    *,
    data_root: str | None,
    labelled: bool,
    source: str = "",
    problem_type: str | None = None,
) -> DataSplit:
    """The rows for training and for validation.

    `source`: its name in a mixture. `labelled`: whether the label of each row becomes what is trained, by
    `problem_type` (of ModelConfig): the number of its class, those of several, a number; None for a row without a
    label.
    Raises: DataError if the data, a column or a split is missing, or labels are no classes.
    """
    parts, order = drawn_parts(config, data_root)
    held_out = held_out_rows(config.validation, len(order))
    rows = [replace(row, source=source) for row in _rows(parts, order)] if source else _rows(parts, order)
    for _, mistake in column_mistakes(
        config, [row.values for row in rows], labelled=labelled, where="the data"
    ):
        raise DataError(mistake)
    rows = [replace(row, values=renamed_row(row.values, config.columns)) for row in rows]
    warnings = list(dict.fromkeys(text for part in parts for text in part.table.warnings))
    warnings += list(missing_and_empty(config, [row.values for row in rows], labelled=labelled))
    if not labelled:
        return DataSplit(train=rows[held_out:], validation=rows[:held_out], warnings=warnings)
    labels = labels_of_parts(parts, config, problem_type)
    rows = [replace(row, values=row.values | {LABEL: labels.read(row.values[LABEL])}) for row in rows]
    if problem_type in (None, "single_label_classification"):
        numbers = {row.values[LABEL] for row in rows[held_out:] if row.values[LABEL] is not None}
        warnings += single_class(numbers, len(rows) - held_out, labels.names)
    return DataSplit(
        train=rows[held_out:], validation=rows[:held_out], labels=labels.names, warnings=warnings
    )


def drawn_parts(config: DataConfig, data_root: str | None) -> tuple[list[Part], NDArray[np.int64]]:
    """The parts of the split, and the indices of the rows that are used, in their order, among the rows of all parts.

    Raises: as `load_rows`.
    """
    parts = _split_parts(config, data_root)
    count = sum(len(part.positions) for part in parts)
    if count == 0:
        raise DataError(f"data.path: {config.path} has no rows in {config.split}")
    return parts, np.random.default_rng(config.seed).permutation(count)[: config.rows]


def _split_parts(config: DataConfig, data_root: str | None) -> list[Part]:
    """The splits that `data.split` adds up, or slices of them, each shuffled with the seed."""
    tables: dict[str, RowTable] = {}
    parts = []
    for text in config.split.replace(" ", "").split("+"):
        match = SLICE.fullmatch(text)
        split = match["split"] if match else text
        if split not in tables:
            tables[split] = split_table(config, split=split, data_root=data_root)
        positions = np.arange(tables[split].count)
        if match:
            order = np.random.default_rng(config.seed).permutation(len(positions))
            positions = order[_slice(match, len(order))]
        parts.append(Part(table=tables[split], positions=positions))
    try:
        same = same_class_numbers([part.table for part in parts])
    except DataFileError as error:
        raise DataError(f"data.split: {config.split}: {error}") from error
    return [replace(part, table=table) for part, table in zip(parts, same, strict=True)]


def _rows(parts: Sequence[Part], order: NDArray[np.int64]) -> Rows:
    """The rows of the parts, one after the other, in some order of all of them, with the columns of all parts."""
    columns = dict.fromkeys(name for part in parts for name in part.table.columns)
    found: dict[int, DataRow] = {}
    first = 0
    for part in parts:
        own = [int(index) for index in order if first <= index < first + len(part.positions)]
        positions = [int(part.positions[index - first]) for index in own]
        for index, position, values in zip(own, positions, part.table.take(positions), strict=True):
            found[index] = DataRow(number=position, values={**columns, **values})
        first += len(part.positions)
    return [found[int(index)] for index in order]


def labels_of_parts(parts: Sequence[Part], config: DataConfig, problem_type: str | None) -> Labels:
    """The labels of all rows of the parts, those that data.rows leaves out too."""
    column = config.columns.get(LABEL, LABEL)
    found: dict[str, Value] = {}
    for part in parts:
        positions = np.sort(part.positions)
        for first in range(0, len(positions), LABELS_AT_ONCE):
            for row in part.table.take(positions[first : first + LABELS_AT_ONCE].tolist()):
                value = renamed_row(row, {LABEL: column})[LABEL]
                listed = isinstance(value, list) and problem_type == MULTI_LABEL
                found.update((repr(one), one) for one in (cast("list[Value]", value) if listed else [value]))
            if problem_type == REGRESSION and any(value not in (None, "") for value in found.values()):
                break  # its numbers have no names
    names = _class_names(parts, column)
    return labels_of(list(found.values()), problem_type=problem_type, column=column, names=names)


def _class_names(parts: Sequence[Part], column: str) -> list[str] | None:
    """The class names of a column, which are the same in all parts that have it."""
    return next((names for part in parts if (names := part.table.class_names.get(column))), None)


def _slice(match: re.Match[str], rows: int) -> slice:
    def bound(text: str, unit: str) -> int | None:
        if not text:
            return None
        return round(int(text) * rows / 100) if unit else int(text)

    return slice(bound(match["low"], match["low_unit"]), bound(match["high"], match["high_unit"]))


def held_out_rows(validation: float, rows: int) -> int:
    """How many of the rows are for validation, the first ones. Raises: DataError if none is left for training."""
    held_out = max(1, round(validation * rows)) if 0 < validation < 1 else int(validation)
    if held_out >= rows:
        raise DataError(
            f"data.validation: {validation} of {rows} rows leaves none for training; lower it or use more rows"
        )
    return held_out


def single_class(numbers: Set[Value], count: int, names: Sequence[str]) -> list[str]:
    """What is said of `count` training rows whose labels have these numbers."""
    if len(numbers) != 1:
        return []
    label = next(name for number, name in enumerate(names) if number in numbers)
    return [f"all {count} training rows have the label {label}: nothing can be learned"]

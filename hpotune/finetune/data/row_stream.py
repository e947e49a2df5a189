"""The rows of a source in the order in which they are stored, a few at a time (`data.streaming`).

They are the rows that `load_rows` draws, with the same errors and warnings; each has its index in the drawn order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hpotune.config.rows.prompt_columns import ColumnCounts, add_fields, column_mistakes, renamed_row
from hpotune.config.rows.text_encoding import DataFileError
from hpotune.config.schema.study_config import REGRESSION, DataConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.data.dataset import (
    LABEL,
    DataRow,
    Part,
    drawn_parts,
    held_out_rows,
    labels_of_parts,
    single_class,
)
from hpotune.finetune.data.stored_sequence import Positions
from hpotune.finetune.trial_errors import DataError

ROWS_READ = 512
"""Rows of a block."""
DrawnRow = tuple[int, DataRow]
"""A row and its index in the drawn order, from 0; the first RowStream.held_out indices are for validation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowStream:
    """The rows of one source, which can be read again and again."""

    config: DataConfig
    source: str
    """Its name in the mixture; empty without one."""
    parts: list[Part]
    order: Positions
    held_out: int
    labels: list[str] = field(default_factory=list)
    """As DataSplit.labels."""
    warnings: list[str] = field(default_factory=list)
    """As DataSplit.warnings."""
    read_label: Callable[[Value], Value] | None = None
    """A stored label as what is trained; None for a language model."""

    @property
    def train_count(self) -> int:
        """The number of training rows."""
        return len(self.order) - self.held_out

    def blocks(self) -> Iterator[list[DrawnRow]]:
        """The rows as prompts read them.

        Raises: DataError.
        """
        for block in stored_blocks(self.parts, self.order, self.config):
            yield [(index, self._read(row)) for index, row in block]

    def _read(self, row: DataRow) -> DataRow:
        values = renamed_row(row.values, self.config.columns)
        if self.read_label is not None:
            values |= {LABEL: self.read_label(values[LABEL])}
        return DataRow(number=row.number, values=values, source=self.source)


def stream_rows(
    config: DataConfig, *, data_root: str | None, labelled: bool, source: str, problem_type: str | None
) -> RowStream:
    """The rows of a source, all of which are read once, to check their columns and their labels.

    The arguments and the errors are those of `load_rows`.
    """
    parts, order = drawn_parts(config, data_root)
    stream = RowStream(
        config=config,
        source=source,
        parts=parts,
        order=order,
        held_out=held_out_rows(config.validation, len(order)),
        warnings=list(dict.fromkeys(text for part in parts for text in part.table.warnings)),
    )
    known: dict[str, Value] = {}
    counts = ColumnCounts(config, labelled=labelled)
    of_train, of_validation = dict[str, Value](), dict[str, Value]()
    for block in stored_blocks(parts, order, config):
        for index, row in block:
            add_fields(known, row.values)
            values = renamed_row(row.values, config.columns)
            counts.add(values)
            if labelled and problem_type != REGRESSION and LABEL in values:
                found = of_train if index >= stream.held_out else of_validation
                found[repr(values[LABEL])] = values[LABEL]
    for _, mistake in column_mistakes(config, [known], labelled=labelled, where="the data"):
        raise DataError(mistake)
    stream.warnings.extend(counts.sentences())
    if not labelled:
        return stream
    labels = labels_of_parts(parts, config, problem_type)
    for label in of_validation.values():
        labels.read(label)
    read = [labels.read(label) for label in of_train.values()]
    if problem_type in (None, "single_label_classification"):
        numbers = {number for number in read if number is not None}
        stream.warnings.extend(single_class(numbers, stream.train_count, labels.names))
    return RowStream(
        config=config,
        source=source,
        parts=parts,
        order=order,
        held_out=stream.held_out,
        labels=labels.names,
        warnings=stream.warnings,
        read_label=labels.read,
    )


def stored_blocks(parts: Sequence[Part], order: Positions, config: DataConfig) -> Iterator[list[DrawnRow]]:
    """The rows that an order draws of all parts, as they are stored, with the columns of all parts.

    Raises: DataError for a file that cannot be read any more.
    """
    columns = dict.fromkeys(name for part in parts for name in part.table.columns)
    drawn = np.argsort(order)
    indices, first = order[drawn], 0
    for part in parts:
        low, high = np.searchsorted(indices, [first, first + len(part.positions)])
        positions = part.positions[indices[low:high] - first]
        ascending = np.argsort(positions)
        for start in range(0, len(ascending), ROWS_READ):
            some = ascending[start : start + ROWS_READ]
            numbers, own = positions[some].tolist(), drawn[low:high][some].tolist()
            try:
                taken = part.table.take(numbers)
            except DataFileError as error:
                raise DataError(f"data.path: {config.path}: {error}") from error
            yield [
                (index, DataRow(number=number, values={**columns, **values}))
                for index, number, values in zip(own, numbers, taken, strict=True)
            ]
        first += len(part.positions)

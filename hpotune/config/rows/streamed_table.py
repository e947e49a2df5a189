"""Rows that are read from their file whenever they are taken (`data.streaming`): the memory of a few rows, at any size.

They are read in the order of the file: positions that ascend from call to call cost one reading of the file, others
start at its beginning again (a text file), or at the row group that holds them (Parquet).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING

from hpotune.config.rows.csv_rows import csv_columns, csv_rows
from hpotune.config.rows.data_files import DATA_FILES
from hpotune.config.rows.json_rows import json_rows
from hpotune.config.rows.row_table import RowTable
from hpotune.config.rows.text_encoding import DataFileError
from hpotune.config.yaml_source import Value

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

ROWS_READ = 1024
"""Rows of a Parquet file that are decoded at once."""
BUFFER = 2**20
"""Bytes that are read at once of a column of a Parquet file."""
CHANGED = "has fewer rows than when it was opened; something else writes it"


def streamed_file(file: Path) -> RowTable:
    """All rows of a file.

    Raises: DataFileError, with the file, the line and the reason.
    """
    form = DATA_FILES[file.suffix]
    if form == "parquet":
        return streamed_parquet(file)
    if form == "csv":
        return streamed_rows(lambda: csv_rows(file), columns=csv_columns(file), name=str(file))
    return streamed_rows(lambda: json_rows(file), name=str(file))


def streamed_rows(
    read: Callable[[], Iterator[dict[str, Value]]], *, name: str, columns: Iterable[str] = ()
) -> RowTable:
    """The rows that `read` returns, always the same ones; they are read once for their number and their columns.

    `columns`: names that come first. `name`: of the file, for an error.
    Raises: as `read`.
    """
    names, count = dict.fromkeys(columns), 0
    for row in read():
        count += 1
        if not names.keys() >= row.keys():
            names.update(dict.fromkeys(row))
    cursor = _RowCursor(read, name)

    def take(indices: Sequence[int]) -> list[dict[str, Value]]:
        found = cursor.rows(sorted(set(indices)))
        return [{column: found[index].get(column) for column in names} for index in indices]

    return RowTable(columns=list(names), count=count, take=take, class_names={})


class _RowCursor:
    """An open reader of rows, and the position of its next row."""

    def __init__(self, read: Callable[[], Iterator[dict[str, Value]]], name: str) -> None:
        self._read, self._name = read, name
        self._rows: Iterator[dict[str, Value]] = iter(())
        self._next: int | None = None
        """None: nothing is open."""

    def rows(self, wanted: Sequence[int]) -> dict[int, dict[str, Value]]:
        """The rows at ascending positions."""
        found = {}
        for index in wanted:
            if self._next is None or index < self._next:
                self._rows, self._next = self._read(), 0
            row = next(islice(self._rows, index - self._next, None), None)
            if row is None:
                self._next = None
                raise DataFileError(f"{self._name}: {CHANGED}")
            found[index], self._next = row, index + 1
        return found


def streamed_parquet(file: Path) -> RowTable:
    """The rows of a Parquet file, decoded ROWS_READ at a time.

    Raises: DataFileError for a file that is not Parquet, or without pyarrow.
    """
    import pyarrow

    from hpotune.config.rows.arrow_rows import arrow_table, opened_parquet

    opened = opened_parquet(file, buffer=BUFFER)
    cursor = _BatchCursor(opened, file)
    empty = opened.schema_arrow.empty_table()

    def take(indices: Sequence[int]) -> pyarrow.Table:
        order = sorted(set(indices))
        number_of = {index: number for number, index in enumerate(order)}
        inner = pyarrow.array([number_of[index] for index in indices], type=pyarrow.int64())
        return cursor.table(order, empty=empty).take(inner)

    return replace(arrow_table(empty, take=take), count=opened.metadata.num_rows)


class _BatchCursor:
    """An open reader of a Parquet file: its last batch of rows, and the batches behind it in the row group."""

    def __init__(self, opened: parquet.ParquetFile, file: Path) -> None:
        groups = [opened.metadata.row_group(number).num_rows for number in range(opened.num_row_groups)]
        self._opened, self._file = opened, file
        self._starts = [0, *accumulate(groups)]
        self._batches: Iterator[pyarrow.RecordBatch] = iter(())
        self._batch: pyarrow.RecordBatch | None = None
        self._start = 0
        """Of the batch."""

    def table(self, wanted: Sequence[int], *, empty: pyarrow.Table) -> pyarrow.Table:
        """The rows at ascending positions."""
        import pyarrow

        parts, done = [empty], 0
        while done < len(wanted):
            batch = self._batch_of(wanted[done])
            end = bisect_left(wanted, self._start + batch.num_rows, done)
            inner = [index - self._start for index in wanted[done:end]]
            parts.append(pyarrow.Table.from_batches([batch.take(pyarrow.array(inner))]))
            done = end
        return pyarrow.concat_tables(parts)

    def _batch_of(self, index: int) -> pyarrow.RecordBatch:
        """The batch that holds a row; reads on, or from the start of the row's group."""
        group = bisect_right(self._starts, index) - 1
        if self._batch is None or index < self._start or self._starts[group] > self._start:
            self._batches = self._opened.iter_batches(batch_size=ROWS_READ, row_groups=[group])
            self._batch, self._start = None, self._starts[group]
        while self._batch is None or index >= self._start + self._batch.num_rows:
            self._start += 0 if self._batch is None else self._batch.num_rows
            self._batch = next(self._batches, None)
            if self._batch is None:
                raise DataFileError(f"{self._file}: {CHANGED}")
        return self._batch

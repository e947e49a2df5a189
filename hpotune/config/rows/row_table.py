"""The rows of one split, taken by their positions; a column that a row lacks is missing (None).

A file's rows are in memory; those of an Arrow table are converted only when they are taken, so that a study of 1000
rows of a large dataset needs the memory of 1000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from hpotune.config.rows.text_encoding import DataFileError
from hpotune.config.yaml_source import Value


@dataclass(frozen=True, kw_only=True, slots=True)
class RowTable:
    """Rows in their stored order, and the names of their columns."""

    columns: list[str]
    """Every column that a row has, in the order in which they appear."""
    count: int
    """The number of rows."""
    take: Callable[[Sequence[int]], list[dict[str, Value]]]
    """The rows at some positions, from 0, each with all columns."""
    class_names: Mapping[str, list[str]]
    """Columns that are stored as class numbers -> the names of the classes; empty for text files."""
    warnings: tuple[str, ...] = ()
    """What is said of the files that the rows are of."""


def table_of(rows: Iterable[dict[str, Value]], *, columns: Iterable[str] = ()) -> RowTable:
    """Rows that are in memory, with the columns of all of them.

    `columns`: names that come first, such as those of a header line, of which there may be no row.
    """
    stored = list(rows)
    names = dict.fromkeys(columns)
    for row in stored:
        if not names.keys() >= row.keys():
            names.update(dict.fromkeys(row))

    def take(indices: Sequence[int]) -> list[dict[str, Value]]:
        return [{name: stored[index].get(name) for name in names} for index in indices]

    return RowTable(columns=list(names), count=len(stored), take=take, class_names={})


def concatenated(tables: Sequence[RowTable]) -> RowTable:
    """The rows of several tables, one after the other, with the columns of all.

    Raises: as `same_class_numbers`.
    """
    tables = same_class_numbers(tables)
    columns = dict.fromkeys(name for table in tables for name in table.columns)
    starts = [0, *accumulate(table.count for table in tables)]

    def take(indices: Sequence[int]) -> list[dict[str, Value]]:
        found: dict[int, dict[str, Value]] = {}
        for table, start in zip(tables, starts, strict=False):
            own = sorted({index for index in indices if start <= index < start + table.count})
            for index, row in zip(own, table.take([index - start for index in own]), strict=True):
                found[index] = {**dict.fromkeys(columns), **row}
        return [found[index] for index in indices]

    names = {column: names for table in tables for column, names in table.class_names.items()}
    return RowTable(columns=list(columns), count=starts[-1], take=take, class_names=names)


def same_class_numbers(tables: Sequence[RowTable]) -> list[RowTable]:
    """The tables with one numbering of the classes in each column of class numbers: classes are matched by name.

    Raises: DataFileError if a table has class names for a column and another has that column without them.
    """
    names: dict[str, dict[str, None]] = {}
    for table in tables:
        for column, own in table.class_names.items():
            names.setdefault(column, {}).update(dict.fromkeys(own))
    for column in names:
        if any(column in table.columns and column not in table.class_names for table in tables):
            raise DataFileError(
                f"the column {column!r} has class names ({', '.join(names[column])}) in one split or file, and none "
                "in another; store it as ClassLabel in all, or as text"
            )
    return [
        renumbered(table, {column: list(names[column]) for column in table.class_names}) for table in tables
    ]


def renumbered(table: RowTable, class_names: Mapping[str, list[str]]) -> RowTable:
    """The table with the class numbers of the columns in `class_names` by those names.

    A column without class names of its own is numbered so already.
    Raises: DataFileError for a class of the table that is not among the names.
    """
    numbers: dict[str, list[int]] = {}
    for column, own in table.class_names.items():
        wanted = class_names.get(column, own)
        unknown = [name for name in own if name not in wanted]
        if unknown:
            raise DataFileError(
                f"the column {column!r} has the class {unknown[0]!r} in a file, and the card lists "
                f"{', '.join(wanted)}; correct the card"
            )
        if own != wanted[: len(own)]:
            numbers[column] = [wanted.index(name) for name in own]

    def take(indices: Sequence[int]) -> list[dict[str, Value]]:
        return [
            row | {column: _renumbered(row[column], order) for column, order in numbers.items()}
            for row in table.take(indices)
        ]

    names = {**table.class_names, **class_names}
    return replace(table, take=take if numbers else table.take, class_names=names)


def _renumbered(value: Value, numbers: Sequence[int]) -> Value:
    """The new number of a class; a missing label (None, -1) stays as it is."""
    return numbers[value] if isinstance(value, int) and 0 <= value < len(numbers) else value

"""The rows of one split, taken by their positions; a column that a row lacks is missing (None).

A file's rows are in memory; those of an Arrow table are converted only when they are taken, so that a study of 1000
rows of a large dataset needs the memory of 1000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

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
    """The rows of several tables, one after the other, with the columns of all."""
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

"""The one reader of local data files: a trial, the rehearsal and the static check read through it.

Text is kept letter by letter and no type is guessed (csv_rows.py, json_rows.py, arrow_rows.py). No torch, no datasets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpotune.config.rows.csv_rows import csv_columns, csv_rows
from hpotune.config.rows.json_rows import json_rows
from hpotune.config.rows.row_table import RowTable, table_of
from hpotune.config.yaml_source import Value

DATA_FILES = {".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
"""Endings of data files that a trial reads -> their format."""
SAMPLE_CHARACTERS = 2**20
"""Length of the rows that the static check reads of a file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSample:
    """The first rows of a file: enough to know its columns."""

    columns: list[str]
    rows: list[dict[str, Value]]
    """Of a Parquet file one row without values, from its schema."""


def file_table(file: Path) -> RowTable:
    """All rows of a file.

    Raises: DataFileError, with the file, the line and the reason.
    """
    form = DATA_FILES[file.suffix]
    if form == "parquet":
        from hpotune.config.rows.arrow_rows import parquet_table

        return parquet_table(file)
    if form == "csv":
        return table_of(csv_rows(file), columns=csv_columns(file))
    return table_of(json_rows(file))


def file_sample(file: Path) -> FileSample:
    """The first rows of a file, at least one if it has any.

    Raises: DataFileError, with the file, the line and the reason.
    """
    form = DATA_FILES[file.suffix]
    if form == "parquet":
        from hpotune.config.rows.arrow_rows import parquet_fields

        rows = [parquet_fields(file)]
    else:
        rows = list(_first(csv_rows(file) if form == "csv" else json_rows(file)))
    columns = dict.fromkeys(csv_columns(file) if form == "csv" else ())
    for row in rows:
        columns.update(dict.fromkeys(row))
    return FileSample(columns=list(columns), rows=rows or [dict.fromkeys(columns)])


def _first(rows: Iterable[dict[str, Value]]) -> Iterator[dict[str, Value]]:
    characters = 0
    for row in rows:
        yield row
        characters += len(str(row))
        if characters > SAMPLE_CHARACTERS:
            return

"""Rows of a CSV file: every cell is text as it is written, `007`, `1.50`, `NA` and `true` too.

An empty cell is empty text; the cells that a short row lacks are missing (None). The delimiter is a comma, semicolon,
tab or bar that stands in the header line outside of quotes. Blank lines are skipped.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from hpotune.config.rows.text_encoding import DataFileError, opened_text
from hpotune.config.yaml_source import Value

DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
COMPARED_ROWS = 20
"""Records that are split by each delimiter if the header line holds several."""
LARGEST_CELL = 2**31 - 1
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_REASONS = {
    "unexpected end of data": 'a cell opens with a quote (") that nothing closes',
    "expected after": 'text stands behind the quote (") that closes a cell',
}

Record = tuple[int, list[str]]
"""The line (from 1) on which a record starts, and its cells."""


def csv_columns(file: Path, *, delimiter: str | None = None) -> list[str]:
    """The names in the header line, as they are written.

    Raises: DataFileError for a file without a header, a name that stands twice, or an unclear delimiter.
    """
    return [name for name in _header(file, delimiter or csv_delimiter(file)) if name]


def csv_rows(
    file: Path, *, delimiter: str | None = None, names: Sequence[str] | None = None
) -> Iterator[dict[str, Value]]:
    """The rows in the order of the file. A column without a name, such as the index that pandas writes, is left out.

    `names`: the columns of a file without a header line.
    Raises: DataFileError for a row with too many cells or wrong quotes.
    """
    delimiter = delimiter or csv_delimiter(file)
    columns = _header(file, delimiter) if names is None else list(names)
    unnamed = [index for index, name in enumerate(columns) if not name]
    for number, (line, cells) in enumerate(islice(_records(file, delimiter), names is None, None)):
        where = f"{file}: line {line} (row {number})"
        if len(cells) > len(columns):
            raise DataFileError(
                f"{where}: {len(cells)} cells for {len(columns)} columns; "
                f"put a cell that holds {DELIMITERS.get(delimiter, repr(delimiter))} in quotes"
            )
        if any(cells[index] for index in unnamed if 0 < index < len(cells)):
            raise DataFileError(
                f"{where}: text in a column without a name; name the column in the header line"
            )
        row: dict[str, Value] = dict.fromkeys(columns)
        row.update(zip(columns, cells, strict=False))
        if unnamed:
            del row[""]
        yield row


def csv_delimiter(file: Path) -> str:
    """The delimiter of the header line; a comma if it has one column.

    Raises: DataFileError if more than one splits the first rows evenly, or none does.
    """
    if file.suffix == ".tsv":
        return "\t"
    header = _header_text(file)
    found = [sign for sign in DELIMITERS if sign in _QUOTED.sub("", header)]
    if len(found) > 1:
        even = [sign for sign in found if _splits_evenly(file, sign)]
        if len(even) != 1:
            signs = " or ".join(DELIMITERS[sign] for sign in even or found)
            raise DataFileError(
                f"{file}: the header line can be split by {signs}; put its names in quotes, or use commas"
            )
        return even[0]
    return found[0] if found else ","


def _header_text(file: Path) -> str:
    """The first line that is not blank, with those that a quoted name continues on."""
    header = ""
    with opened_text(file) as lines:
        for line in lines:
            if header or line.strip():
                header += line
                if header.count('"') % 2 == 0:
                    break
    return header


def _splits_evenly(file: Path, delimiter: str) -> bool:
    try:
        counts = {len(cells) for _, cells in islice(_records(file, delimiter), COMPARED_ROWS)}
    except DataFileError:
        return False
    return len(counts) == 1


def _header(file: Path, delimiter: str) -> list[str]:
    header = next(_records(file, delimiter), None)
    if header is None:
        raise DataFileError(f"{file}: is empty; its first line needs the names of the columns")
    line, names = header
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise DataFileError(f"{file}: line {line}: the column {twice[0]!r} stands twice; rename one")
    return names


def _records(file: Path, delimiter: str) -> Iterator[Record]:
    """The records of the file, its header first, without blank lines."""
    csv.field_size_limit(LARGEST_CELL)
    header_found = False
    raw = list[str]()
    with opened_text(file) as lines:
        reader = csv.reader(_kept(lines, raw), delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            raw.clear()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataFileError(f"{file}: line {line}: {_reason(error)}") from error
            if any(cell.lstrip(" \t").startswith('"') and cell[0] != '"' for cell in cells):
                _check_quotes("".join(raw), delimiter, f"{file}: line {line}")
            header_found = header_found or any(cell.strip() for cell in cells)
            if cells and header_found:
                yield line, cells


def _kept(lines: Iterable[str], raw: list[str]) -> Iterator[str]:
    """The lines, each added to `raw` too."""
    for line in lines:
        raw.append(line)
        yield line


def _check_quotes(record: str, delimiter: str, where: str) -> None:
    """Check that no blank stands before the quote that opens a cell: the quotes would be part of the text."""
    sign = re.escape(delimiter)
    blanks = r" +" if delimiter == "\t" else r"[ \t]+"
    for match in re.finditer(rf'(?:^|{sign})(?:"(?:[^"]|"")*"|(?P<odd>{blanks}"[^{sign}\r\n]*))', record):
        if match["odd"]:
            raise DataFileError(
                f"{where}: a blank stands before the quote of {match['odd'].strip()[:40]}, so that the quotes would be "
                "text; remove the blank, or put the whole cell in quotes with its own written twice"
            )


def _reason(error: csv.Error) -> str:
    known = next((reason for text, reason in _REASONS.items() if text in str(error)), str(error))
    return f'{known}; write a quote inside of a quoted cell twice ("")'

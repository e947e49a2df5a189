"""Rows of a JSON file: one object in each line, or one list of objects. Strings are kept letter by letter.

A list of strings gives rows with the column `text`. NaN, which Python's json writes and JSON does not know, is missing
(None). Blank lines are skipped. The reader holds one row at a time, of a list as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

from hpotune.config.rows.text_encoding import DataFileError, opened_text
from hpotune.config.yaml_source import Value

CHUNK = 2**20
"""Characters that are read at once of a list."""
BLANKS = " \t\r\n"


def json_rows(file: Path, *, field: str | None = None) -> Iterator[dict[str, Value]]:
    """The rows in the order of the file, each with its own keys.

    `field`: the key under which a file of one object has its list of rows (`field` of a dataset's card).
    Raises: DataFileError for a row that is not an object, or is no JSON.
    """
    with opened_text(file) as text:
        if field is not None:
            yield from _field_rows(file, text.read(), field)
            return
        skipped, start = 0, ""
        for line in text:
            start = line.lstrip(BLANKS)
            if start:
                break
            skipped += 1
        if not start:
            raise DataFileError(f"{file}: is empty; needs one object in each line, or a list of objects")
        if start.startswith("["):
            yield from _list_rows(file, start, text, skipped=skipped)
        elif file.suffix == ".jsonl":
            yield from _line_rows(file, start, text, skipped=skipped)
        else:
            yield from _checked_rows(file, _line_rows(file, start, text, skipped=skipped))


def _checked_rows(file: Path, rows: Iterator[dict[str, Value]]) -> Iterator[dict[str, Value]]:
    """The rows, unless there is one and it holds columns: an object of lists, as `datasets` and pandas write it."""
    first = next(rows)
    second = next(rows, None)
    if second is None and _holds_columns(first):
        raise DataFileError(
            f"{file}: holds one object of columns ({', '.join(list(first)[:4])}), not rows; write a list of records, "
            'such as [{"input": "a", "output": "b"}], or one record in each line of a .jsonl file'
        )
    yield first
    if second is not None:
        yield second
    yield from rows


def _holds_columns(row: dict[str, Value]) -> bool:
    """Whether all values are lists of one length, or objects with the same keys (row numbers).

    One list of objects alone can be the messages of one conversation.
    """
    values = list(row.values())
    lists = [value for value in values if isinstance(value, list)]
    objects = [value for value in values if isinstance(value, dict)]
    if lists and len(lists) == len(values):
        conversation = len(lists) == 1 and all(isinstance(item, dict) for item in lists[0])
        return len({len(items) for items in lists}) == 1 and len(lists[0]) > 0 and not conversation
    if objects and len(objects) == len(values):
        return all(
            item and item.keys() == objects[0].keys() and all(map(str.isdecimal, item)) for item in objects
        )
    return False


def _line_rows(file: Path, first: str, rest: TextIO, *, skipped: int) -> Iterator[dict[str, Value]]:
    number = 0
    for line_number, line in enumerate(_chained(first, rest), start=skipped + 1):
        if not line.strip(BLANKS):
            continue
        where = f"{file}: line {line_number} (row {number})"
        try:
            value = _DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            raise DataFileError(f"{where}: {_reason(error, line)}; correct that line") from error
        yield _row(value, line, where)
        number += 1


def _field_rows(file: Path, text: str, field: str) -> Iterator[dict[str, Value]]:
    try:
        whole = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"{file}: {error}") from error
    rows = whole.get(field) if isinstance(whole, dict) else None
    if not isinstance(rows, list):
        raise DataFileError(f"{file}: has no list of rows under the key {field!r}, which the card names")
    for number, value in enumerate(rows):
        yield _row(value, "", f"{file}: row {number}")


def _chained(first: str, rest: TextIO) -> Iterator[str]:
    yield first
    yield from rest


def _list_rows(file: Path, start: str, rest: TextIO, *, skipped: int) -> Iterator[dict[str, Value]]:
    """The objects of a list, decoded one after the other."""
    text, position, number, line = start, 1, 0, skipped + 1
    while True:
        text, position, line = _at_next_sign(text, position, rest, line=line)
        where = f"{file}: line {line} (row {number})"
        sign = text[position : position + 1]
        if sign == "]":
            break
        if number and sign != ",":
            raise DataFileError(f"{where}: Expecting ',' or ']' after a row; correct that line")
        if number:
            text, position, line = _at_next_sign(text, position + 1, rest, line=line)
            where = f"{file}: line {line} (row {number})"
        value, text, position, end = _decoded(text, position, rest, where=where)
        yield _row(value, text[position:end], where)
        line += text.count("\n", position, end)
        position, number = end, number + 1
    text, position, line = _at_next_sign(text, position + 1, rest, line=line)
    if position < len(text):
        raise DataFileError(f"{file}: line {line}: text stands behind the end of the list; remove it")


def _at_next_sign(text: str, position: int, rest: TextIO, *, line: int) -> tuple[str, int, int]:
    """The text, the position of the next character that is not blank (its length at the end), and its line."""
    while True:
        while position < len(text) and text[position] in BLANKS:
            line += text[position] == "\n"
            position += 1
        if position < len(text):
            return text, position, line
        text, position = rest.read(CHUNK), 0
        if not text:
            return text, position, line


def _decoded(text: str, position: int, rest: TextIO, *, where: str) -> tuple[Value, str, int, int]:
    """A value, the text that holds it, and its start and end there.

    Reads on for a value that the text does not hold whole; a mistake shows again with more text.
    """
    size = CHUNK
    while True:
        try:
            value, end = _DECODER.raw_decode(text, position)
            return cast(Value, value), text, position, end
        except (ValueError, RecursionError) as error:
            more = rest.read(size)
            if not more:
                raise DataFileError(f"{where}: {_reason(error)}; correct that row") from error
            text, position, size = text[position:] + more, 0, 2 * size


def _row(value: Value, text: str, where: str) -> dict[str, Value]:
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        raise DataFileError(f"{where}: {text.strip()[:40]!r} is not an object {{...}}, as a row needs to be")
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise DataFileError(
                f"{where}: {half} is half of a character (a surrogate); correct it"
            ) from error
    return value


def _reason(error: ValueError | RecursionError, line: str | None = None) -> str:
    """What is wrong; `line`: the whole line that should hold an object."""
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    if line is not None and error.pos >= len(line.rstrip(BLANKS)):
        return "the object does not end in this line; put each row in one line, or all rows in a list"
    return f"{error.msg} (character {error.colno})"


def _object(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return values


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)

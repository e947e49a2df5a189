"""Text files opened in their encoding: by the byte order mark, or UTF-8. Other encodings are named, never guessed."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from hpotune.config.text_files import check_regular

# The mark of UTF-32 begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks -> Python's name of the encoding."""


class DataFileError(ValueError):
    """A data file that cannot be read as its ending says: `FILE: line 9: reason; next step`."""


@contextmanager
def opened_text(file: Path) -> Iterator[TextIO]:
    """The file as text, its line breaks unchanged.

    Raises: DataFileError, also inside the context, for a file that cannot be read or decoded.
    """
    try:
        check_regular(file)
        with file.open(encoding=_encoding(file), newline="") as text:
            yield text
    except UnicodeError as error:
        raise DataFileError(f"{file}: {_undecodable(file)}") from error
    except OSError as error:
        raise DataFileError(f"{file}: cannot be read ({error.strerror})") from error


def _encoding(file: Path) -> str:
    with file.open("rb") as content:
        start = content.read(4)
    for mark, name in MARKS:
        if start.startswith(mark):
            return name
    if len(start) > 1 and 0 in start[:2]:
        name = "utf-16be" if start[0] == 0 else "utf-16le"
        raise DataFileError(
            f"{file}: is UTF-16 without a byte order mark; convert it: {_conversion(file, name)}"
        )
    return "utf-8"


def _undecodable(file: Path) -> str:
    """What is wrong with a file that is not text in its encoding."""
    name = _encoding(file)
    if not name.startswith("utf-8"):
        return f"is not {name.upper()}, which its byte order mark says; write it again"
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = f"0x{line[error.start]:02X}"
                return (
                    f"line {number}: is not UTF-8 (byte {byte}); "
                    f"if it is Latin-1, convert it: {_conversion(file, 'latin1')}"
                )
    return "is not UTF-8"


def _conversion(file: Path, encoding: str) -> str:
    return f"iconv -f {encoding} -t utf-8 {file.name} > utf8-{file.name}"

"""The JSON files of a study's folder: where a damaged file becomes one line that names it.

A file may be empty, cut by a crash, written by another version, or be no file at all. What hpotune cannot do without is
read by `read_object`, which says so; what it can do without by `optional_object`, which gives None.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hpotune.errors import StudyFileError

MAX_BYTES = 64_000_000
"""No file of a study's folder that is read as text comes near to it."""


class DamagedFileError(StudyFileError):
    """A file of a study's folder cannot be read; the message names it and the next step."""


def read_object(file: Path, *, next_step: str) -> dict[str, Any]:
    """The object in a JSON file. `next_step`: how to go on without the file, for the message.

    Raises: DamagedFileError where the file is missing, or does not hold one whole object.
    """
    with decoding(file, next_step=next_step):
        found = json.loads(read_regular(file).decode("utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds {_kind(found)} and no object")
        return found


def optional_object(file: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where the file is missing or damaged."""
    try:
        return read_object(file, next_step="")
    except DamagedFileError:
        return None


def json_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The object of each line of a file of JSON lines; nothing where the file cannot be read.

    A line that is damaged, as a kill cuts the last one short, is left out.
    """
    try:
        lines = read_regular(file).decode("utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        found: object = None
        with suppress(DamagedFileError), decoding(file, next_step=""):
            found = json.loads(line)
        if isinstance(found, dict):
            yield found


@contextmanager
def decoding(file: Path, *, next_step: str) -> Iterator[None]:
    """A context in which the content of a file is taken apart; what goes wrong there is damage of the file.

    Raises: DamagedFileError.
    """
    try:
        yield
    except DamagedFileError:
        raise
    except FileNotFoundError as error:
        raise DamagedFileError(f"{file}: is missing; {next_step}") from error
    except OSError as error:
        raise DamagedFileError(f"{file}: cannot be read ({error.strerror or error}); {next_step}") from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedFileError(f"{file}: is damaged ({_reason(error)}); {next_step}") from error


def read_regular(file: Path, *, most: int = MAX_BYTES) -> bytes:
    """The content of a regular file; a pipe or a device would be waited for without end.

    Raises: OSError, also where it is no regular file or larger than `most` bytes.
    """
    opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
            raise OSError(0, f"it is {what}", str(file))
        if found.st_size > most:
            raise OSError(0, f"it has more than {most / 1_000_000:g} MB", str(file))
        with os.fdopen(opened, "rb", closefd=False) as content:
            return content.read(most)
    finally:
        os.close(opened)


def _reason(error: Exception) -> str:
    """What is wrong with the content, in a few words."""
    if isinstance(error, json.JSONDecodeError):
        return "it is empty" if not error.doc.strip() else f"no JSON: {error.msg}, line {error.lineno}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError):
        return f"without {error.args[0]!r}"
    return " ".join(str(error).split())[:100] or type(error).__name__


def _kind(value: object) -> str:
    names = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")

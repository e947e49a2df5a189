"""Progress on stderr: one line that changes on a terminal, else a line for each step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from hpotune.config.text.outside_text import console_text

CLEAR = "\r\x1b[K"
"""Moves to the start of the line and empties it."""
COUNTS = "0123456789,of "
"""The end of a line that counts: `rows: 12 of 300`."""


class Show(Protocol):
    """Shows progress: its text, and the name of its step; None: the text without a count at its end."""

    def __call__(self, text: str, *, step: str | None = None) -> None: ...


@contextmanager
def progress_line(*, silent: bool) -> Iterator[Show]:
    """Yields what shows progress; afterwards the line is empty again."""
    if silent:
        yield _nothing
    elif sys.stderr.isatty():
        try:
            yield _rewrite
        finally:
            _write(CLEAR)
    else:
        yield _step_printer()


def _nothing(text: str, *, step: str | None = None) -> None:
    pass


def _rewrite(text: str, *, step: str | None = None) -> None:
    _write(f"{CLEAR}{console_text(text)}")


def _step_printer() -> Show:
    """Prints a line where the step is another one, not for each count."""
    shown = ""

    def show(text: str, *, step: str | None = None) -> None:
        nonlocal shown
        name = text.rstrip(COUNTS) if step is None else step
        if name != shown:
            shown = name
            _write(f"{console_text(text if step is None else step)}\n")

    return show


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()

"""The progress of a rehearsal on stderr: one line that changes on a terminal, else a line for each step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hpotune.config.text.outside_text import console_text

CLEAR = "\r\x1b[K"
"""Moves to the start of the line and empties it."""
COUNTS = "0123456789,of "
"""The end of a line that counts: `rows: 12 of 300`."""


@contextmanager
def rehearsal_line(*, silent: bool) -> Iterator[Callable[[str], None]]:
    """Yields what a rehearsal's `show` is; afterwards the line is empty again."""
    if silent:
        yield lambda _: None
    elif sys.stderr.isatty():
        try:
            yield _rewrite
        finally:
            _write(CLEAR)
    else:
        yield _step_printer()


def _rewrite(text: str) -> None:
    _write(f"{CLEAR}{console_text(text)}")


def _step_printer() -> Callable[[str], None]:
    """Prints a line where the step is another one, not for each count."""
    shown = ""

    def show(text: str) -> None:
        nonlocal shown
        if text.rstrip(COUNTS) != shown:
            shown = text.rstrip(COUNTS)
            _write(f"{console_text(text)}\n")

    return show


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()

"""The consoles and plain tables of all reports; no other file makes one.

Text from users is printed as it is, apart from hidden characters (config/text/outside_text.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Span, Text

from hpotune.config.text.outside_text import console_text, has_hidden


class _Console(Console):
    """A console that shows hidden characters instead of printing them."""

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - rich has seven
        """The text of a cell or a line."""
        return super().render_str(console_text(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is printed of a table or text; called for each part of it too."""
        if isinstance(renderable, Text) and has_hidden(renderable.plain):
            renderable = _with_hidden_shown(renderable)
        return super().render(renderable, options)


def _with_hidden_shown(text: Text) -> Text:
    """The text with hidden characters as `<U+001B>`; its styles stay where they are."""
    shown = [console_text(character) for character in text.plain]
    at = [0, *accumulate(map(len, shown))]
    spans = [Span(at[span.start], at[min(span.end, len(shown))], span.style) for span in text.spans]
    found = text.blank_copy("".join(shown))
    found.spans = spans
    return found


def plain_console(*, stderr: bool = False, width: int | None = None, soft_wrap: bool = False) -> Console:
    """A console that prints text as it is: no markup of `[x]`, no emoji of `:x:`, no colour of numbers."""
    return _Console(
        stderr=stderr, width=width, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False
    )


def on_terminal(*streams: TextIO) -> bool:
    """Whether all of these streams are a terminal that can move its cursor, so that a display may be redrawn there."""
    return all(stream.isatty() for stream in streams) and not plain_console().is_dumb_terminal


def plain_table(columns: Sequence[str], *, right: Sequence[str] = (), fold: bool = True) -> Table:
    """A table without lines. `right`: columns that are aligned to the right. `fold`: long words are broken."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold" if fold else "ellipsis",
        )
    return table


def print_report(renderable: object) -> None:
    """Prints a table or text to stdout; lines are not wrapped where stdout is no terminal."""
    on_terminal = sys.stdout.isatty()
    plain_console(width=None if on_terminal else 200, soft_wrap=not on_terminal).print(renderable)

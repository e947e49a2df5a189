"""The consoles and plain tables of all reports; no other file makes one. Text from users is printed as it is."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def plain_console(*, stderr: bool = False, width: int | None = None, soft_wrap: bool = False) -> Console:
    """A console that prints text as it is: no markup of `[x]`, no emoji of `:x:`, no colour of numbers."""
    return Console(
        stderr=stderr, width=width, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False
    )


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

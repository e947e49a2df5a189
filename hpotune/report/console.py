"""The consoles that all reports are printed on; no other file makes one. What users wrote is shown as they wrote it."""

from __future__ import annotations

from rich.console import Console


def plain_console(*, stderr: bool = False, width: int | None = None, soft_wrap: bool = False) -> Console:
    """A console that prints text as it is: `[x]` is no markup, `:x:` no emoji, numbers get no colour."""
    return Console(
        stderr=stderr, width=width, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False
    )

"""Where the messages of a running call go: information, notes, warnings; and whether progress is shown.

The verbs print them; the Python interface passes notes and warnings to `warnings.warn`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpotune.errors import HpotuneWarning

Line = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Messages:
    """Where the messages of one call go."""

    info: Line
    """What happens: where the study is, what starts next."""
    note: Line
    """What the user should know and need not act on."""
    warning: Line
    """What may be wrong."""
    progress: bool = False
    """Whether running trials and the steps of a rehearsal are shown on stderr."""

    def notes(self, texts: Sequence[str]) -> None:
        """Pass on several notes."""
        for text in texts:
            self.note(text)


def python_messages(*, show: bool) -> Messages:
    """Those of the Python interface: notes and warnings are Python's, the rest is printed to stderr where `show`."""
    return Messages(info=_print if show else _ignore, note=_warn, warning=_warn, progress=show)


def _print(text: str) -> None:
    from hpotune.config.text.outside_text import console_text

    print(console_text(text), file=sys.stderr, flush=True)  # noqa: T201 - the caller asked for it


def _ignore(_: str) -> None:
    """Nothing is shown."""


def _warn(text: str) -> None:
    warnings.warn(text, HpotuneWarning, stacklevel=_levels_of_hpotune() + 1)


def _levels_of_hpotune() -> int:
    """How many calls of hpotune are between this function's caller and the user's line."""
    count, frame = 0, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "hpotune":
        count, frame = count + 1, frame.f_back
    return count

"""Tables as text, and the texts that tables and answers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpotune.reporting.format import number
from hpotune.reporting.views.study_report import option_text
from hpotune.reporting.views.trial_view import TrialView

_MOST_NUMBERS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTable:
    """A table of text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    """Columns that are aligned to the right."""
    note: str = ""


def signed(value: float | str) -> str:
    """A difference with its sign; as text it keeps its decimals."""
    text = value if isinstance(value, str) else number(value)
    return text.replace("-", "−") if text.startswith("-") else f"+{text}"


def listed(numbers: Sequence[int]) -> str:
    """`trials 3, 7 and 2 more`."""
    shown = ", ".join(map(str, numbers[:_MOST_NUMBERS]))
    more = len(numbers) - _MOST_NUMBERS
    word = "trial" if len(numbers) == 1 else "trials"
    return f"{word} {shown}" + (f" and {more} more" if more > 0 else "")


def settings(trial: TrialView) -> tuple[tuple[str, str], ...]:
    """The hyperparameters of a trial with their values as text."""
    return tuple((name, option_text(value)) for name, value in trial.params.items())

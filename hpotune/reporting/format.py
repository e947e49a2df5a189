"""Numbers, times and names as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from hpotune.config.schema.execution import Cause
from hpotune.records.trial import EndedRace


def number(value: object) -> str:
    """A value with at most four significant digits; empty for None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def score(value: float | None, stderr: float | None) -> str:
    """A score with its standard error, where it has one: `0.512 ± 0.031`."""
    return f"{number(value)} ± {stderr:.2g}" if isinstance(stderr, float) else number(value)


def short(value: float) -> str:
    """A quantity with at most three significant digits."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def share_text(share: float) -> str:
    """`12 %`; what rounds to nothing is `less than 1 %`."""
    return "less than 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


STDERR_NOTE = "±: standard error"
"""The caption of everything that shows `score` with an error."""


def interval(value: float, low: float, high: float) -> tuple[str, str, str]:
    """A value and the ends of its confidence interval, with the decimals that the interval's width justifies.

    Half its width is given one significant digit, or two where the first is 3.5 or less.
    Source: rounding rule of the Particle Data Group, Review of Particle Physics, introduction, section 5.3.
    """
    half = (high - low) / 2
    if not math.isfinite(half) or half <= 0:
        return number(value), number(low), number(high)
    exponent = math.floor(math.log10(half))
    decimals = max(0, (1 if half / 10**exponent < 3.55 else 0) - exponent)
    if any(end and not round(end, decimals) for end in (low, high)):  # an end that is not 0 is not shown as 0
        decimals += 1
    return f"{value:.{decimals}f}", f"{low:.{decimals}f}", f"{high:.{decimals}f}"


def point(params: Mapping[str, object]) -> str:
    """`lora.r=8, train.learning_rate=0.0002`."""
    return ", ".join(f"{name}={number(value)}" for name, value in params.items())


def state_text(state: str) -> str:
    """A trial's state in the words of text output; JSON keeps the stored ones."""
    return {"stopped": "pruned", "resting": "waiting for promotion"}.get(state, state)


def race_text(race: EndedRace) -> str:
    """`estimated from 300 of 10042 items: worse than trial 7 by 0.031 ± 0.0094`."""
    by = f"{abs(race.difference):.2g} ± {race.difference_stderr:.2g}"
    return f"estimated from {race.scored_items} of {race.items} items: worse than trial {race.leader} by {by}"


def counts(causes: Mapping[Cause, int]) -> str:
    """`2 x oom, 1 x nan`."""
    return ", ".join(f"{count} x {cause}" for cause, count in causes.items())


def length(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 100 * 60:
        return f"{round(whole / 60)} min"
    hours, minutes = divmod(round(whole / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def moment(when: float | datetime, *, now: datetime) -> str:
    """`14:05` for today, else `2026-11-21 14:05`, in local time. `when` in Unix seconds."""
    at = when if isinstance(when, datetime) else datetime.fromtimestamp(when)
    return f"{at:%H:%M}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M}"

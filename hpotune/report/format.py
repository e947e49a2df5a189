"""Numbers, times and names as people read them."""

from __future__ import annotations

from datetime import datetime

from hpotune.config.schema.study_config import Json


def number(value: Json) -> str:
    """A value short enough for a column."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def scored(value: Json, stderr: Json) -> str:
    """`0.512 ± 0.031`."""
    return f"{number(value)} ± {stderr:.2g}" if isinstance(stderr, float) else number(value)


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
    """`14:05` of the same day, else `2026-11-21 14:05`, in local time. `when` in Unix seconds."""
    at = when if isinstance(when, datetime) else datetime.fromtimestamp(when)
    return f"{at:%H:%M}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M}"

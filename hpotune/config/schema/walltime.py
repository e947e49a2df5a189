"""Times in Slurm's format: minutes, MM:SS, HH:MM:SS, D-HH:MM:SS."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

TIME = r"\d+-\d{1,2}(:\d{2}){0,2}|\d+(:\d{2}){0,2}"


def _text(value: object) -> object:
    """The value as text; a bare number of YAML is minutes."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


LONGEST_DAYS = 3650
"""Slurm takes up to 2^32 minutes; ten years are enough."""


def _as_slurm(value: str) -> str:
    if not re.fullmatch(TIME, value, re.ASCII) or not re.search("[1-9]", value):
        raise ValueError("needs minutes, MM:SS, HH:MM:SS or D-HH:MM:SS, such as 12:00:00")
    if len(value) > 20 or seconds(value) > LONGEST_DAYS * 86400:
        raise ValueError(f"is longer than {LONGEST_DAYS} days; needs less")
    return value


WallTime = Annotated[str, BeforeValidator(_text), AfterValidator(_as_slurm)]
"""A valid time in Slurm's format, above 0."""


def seconds(time: str) -> int:
    """A valid time in seconds."""
    days, _, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        hours, mins, secs = ([*parts, 0, 0])[:3]
    elif len(parts) == 1:
        hours, mins, secs = 0, parts[0], 0
    else:
        hours, mins, secs = ([0, *parts])[-3:]
    return ((int(days or 0) * 24 + hours) * 60 + mins) * 60 + secs


def minutes(time: str) -> int:
    """A valid time in minutes, rounded up as Slurm does."""
    return -(-seconds(time) // 60)

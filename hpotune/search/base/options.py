"""Options of an algorithm (`search.options`), parsed. Errors name the option, its value and its rule."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any


def int_option(options: Mapping[str, Any], name: str, default: int, *, low: int) -> int:
    """A whole number of at least `low`.

    Raises: ValueError for anything else.
    """
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {low}")
    return value


def float_option(options: Mapping[str, Any], name: str, default: float, *, low: float, high: float) -> float:
    """A number from `low` to `high`.

    Raises: ValueError for anything else.
    """
    value = options.get(name, default)
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    if not fits:
        rule = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise ValueError(f"{name}={value!r} must be a number {rule}")
    return float(value)


def choice_option(options: Mapping[str, Any], name: str, default: str, *, allowed: Collection[str]) -> str:
    """One of the allowed strings.

    Raises: ValueError for anything else.
    """
    value = options.get(name, default)
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(allowed)}")
    return value


def bool_option(options: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """A boolean.

    Raises: ValueError for anything else.
    """
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be true or false")
    return value

"""A search algorithm as `algorithms` shows it. Imports no algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AlgorithmView:
    """What an algorithm is for, and what it cannot do."""

    name: str
    """As `search.algorithm`."""
    when: str
    cost: str
    """Of proposing one point."""
    parallel: str
    """How it works with many workers."""
    cannot: tuple[str, ...]
    """Kinds of spaces and objectives that it refuses."""
    source: str
    """Paper or library."""
    options: Mapping[str, str]
    """Key of `search.options` -> meaning."""

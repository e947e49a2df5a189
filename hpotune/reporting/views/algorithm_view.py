"""A search algorithm as `algorithms` shows it. Imports no algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpotune.search.algorithms.algorithm import Algorithm


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


def algorithm_view(name: str, algorithm: Algorithm) -> AlgorithmView:
    """The view of an algorithm under the name that a study file gives it."""
    return AlgorithmView(
        name=name,
        when=algorithm.when,
        cost=algorithm.cost,
        parallel=algorithm.parallel,
        cannot=tuple(algorithm.cannot),
        source=algorithm.source,
        options=algorithm.options,
    )

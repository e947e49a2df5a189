"""A search that asks for points and is told their gains: what the partition-based ones share. No study, no Optuna.

A tree is a pure function of the ordered asks and tells: `replay.py` rebuilds it from the trials of a study.
Spots of equal values share one `Run`: what was tried is never asked for again, what runs is joined, and a cell that
keeps the point of its parent inherits the value, now or when it arrives.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from hpotune.search.base.unit_cube import Cube, Params
from hpotune.search.partition.cells import Spot

PATIENCE = 1_000
"""Spots looked at in one ask without finding one to evaluate; then any free point is better than waiting."""

Bounds = tuple[float, float]
"""Lower and upper bound of a gain."""
Test = tuple[str, float, float]
"""A spot's name and the bounds that a model gave it: kept with the ask, not computed again."""


@dataclass(slots=True, eq=False)
class Run:
    """All that is known of one set of values."""

    point: np.ndarray
    gains: list[float] = field(default_factory=list)
    """Of its trials; larger is better."""
    broken: bool = False
    """Whether one ended without a gain, or none may begin."""
    trials: int = 0

    @property
    def known(self) -> bool:
        """Whether something came back."""
        return self.broken or bool(self.gains)


class Tree(ABC):
    """Asks for spots, one at a time; gains may come back in any order, or later, or never."""

    def __init__(self, cube: Cube, *, fits: Callable[[Params], bool] = lambda params: True) -> None:
        self.cube, self.fits = cube, fits
        self.runs: dict[Hashable, Run] = {}
        self.tests: list[Test] = []
        """Bounds that a model gave since somebody cleared the list."""
        self.worst = 0.0
        """The smallest gain told; 0 before the first."""
        self.best = -math.inf
        """The largest."""
        self._kept: Mapping[str, Bounds] | None = None
        self._back: list[Spot] = []
        self._looked = 0
        self._stream = self._spots()

    @abstractmethod
    def _spots(self) -> Iterator[Spot | None]:
        """Spots to evaluate, in order, each decided with what is known when it is asked for; None: look again."""

    def ask(self, kept: Mapping[str, Bounds] | None = None) -> Spot | None:
        """The next spot to evaluate; None: there is none, take any point. `kept`: bounds of an ask that was made."""
        self._kept, self._looked = kept, 0
        while self._back:
            spot = self._back.pop(0)
            if not self.runs[spot.key].trials and not self.runs[spot.key].known:
                return spot
        return next(self._stream, None)

    def tell(self, spot: Spot, gain: float | None) -> None:
        """A spot's gain; None: it gave none."""
        self.see(spot.key, spot.point)
        self.know(spot.key, gain)

    def see(self, key: Hashable, point: np.ndarray) -> None:
        """That a trial takes these values, whoever asked for them."""
        self.runs.setdefault(key, Run(point)).trials += 1

    def know(self, key: Hashable, gain: float | None) -> None:
        """The end of a trial that was seen."""
        run = self.runs[key]
        if gain is None:
            run.broken = True
            return
        first = math.isinf(self.best)
        self.worst, self.best = gain if first else min(self.worst, gain), max(self.best, gain)
        run.gains.append(gain)

    def release(self, spot: Spot) -> None:
        """That nobody evaluates a spot that was asked for; the next ask gives it again."""
        self._back.append(spot)

    def drop(self, spot: Spot) -> None:
        """That a spot cannot be had; it counts as one that gave nothing."""
        self.runs[spot.key].broken = True

    def gain(self, spot: Spot) -> float | None:
        """What a spot is worth: the mean of its trials, the worst seen where they broke; None: not known yet."""
        run = self.runs.get(spot.key)
        if run is None or not run.known:
            return None
        return sum(run.gains) / len(run.gains) if run.gains else self.worst

    def sound(self, spot: Spot) -> bool:
        """Whether a spot has a gain of its own."""
        run = self.runs.get(spot.key)
        return run is not None and bool(run.gains)

    def _open(self, spot: Spot) -> Iterator[Spot | None]:
        """The spot itself where it must be evaluated; nothing where its values are known, run already or never fit."""
        if spot.key in self.runs:
            yield from self._patient()
            return
        self.runs[spot.key] = Run(spot.point)
        if self.fits(spot.params):
            yield spot
        else:
            self.drop(spot)
            yield from self._patient()

    def _patient(self) -> Iterator[None]:
        """None when an ask has looked at too many spots that it cannot have."""
        self._looked += 1
        if self._looked >= PATIENCE:
            self._looked = 0
            yield None

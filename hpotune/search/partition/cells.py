"""Cells of the unit cube: sections of its axes, each with the one point that stands for it.

Pure arithmetic; no study, no values. An interval is cut into k equal parts, counted in whole numbers: 1/3 + 1/3 never
decides which edge is longer. What can be counted (whole numbers, steps, categories by their place in the list) is cut
between values, so that cells share none and one that holds a single value is not cut again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hpotune.search.base.unit_cube import Axis, Cube, Params

FINEST = 10**12
"""Parts of an interval beyond which it is not cut again: closer points differ by rounding only."""


@dataclass(kw_only=True, slots=True, eq=False)
class Spot:
    """A point that a search may ask for."""

    name: str
    """What the log of the search calls it."""
    point: np.ndarray
    """In the unit cube, values that can be counted at the middle of their share. Shape (d,)."""
    params: Params
    key: Hashable
    """What two spots of equal values share."""


@dataclass(kw_only=True, slots=True, eq=False)
class Cell(Spot):
    """A box of the unit cube. Its name is `depth.index`, the index counted within the depth from the left."""

    h: int
    j: int
    lows: tuple[int, ...]
    """An interval: number of its part, of k ** splits. Otherwise the first value's place."""
    highs: tuple[int, ...]
    """One more than the last."""
    splits: tuple[int, ...]
    """How often each axis was cut."""
    picks: tuple[int, ...]
    """Place of the value that the point has, of axes that can be counted."""


class Grid:
    """The cells of a cube, each cut into k (two or more)."""

    def __init__(self, cube: Cube, k: int) -> None:
        self.cube, self.k = cube, k
        self.sides = [_Values(axis) if axis.size is not None else None for axis in cube.axes]

    def root(self) -> Cell:
        """The whole cube."""
        picks = [side.middle(0, side.size) if side else 0 for side in self.sides]
        values = [
            side.value(pick) if side else axis.value(0.5)
            for side, axis, pick in zip(self.sides, self.cube.axes, picks, strict=True)
        ]
        point = [side.unit(pick) if side else 0.5 for side, pick in zip(self.sides, picks, strict=True)]
        d = len(self.sides)
        return Cell(
            name="0.0", h=0, j=0, lows=(0,) * d, splits=(0,) * d, picks=tuple(picks),
            highs=tuple(side.size if side else 1 for side in self.sides),
            point=np.array(point, dtype=float), key=tuple(values),
            params={axis.name: value for axis, value in zip(self.cube.axes, values, strict=True)},
        )  # fmt: skip

    def divisible(self, cell: Cell) -> list[int]:
        """Axes along which a cell can be cut, the longest first; of equals the first."""
        able = [index for index in range(len(self.sides)) if self._able(cell, index)]
        return sorted(able, key=lambda index: cell.splits[index])

    def children(self, cell: Cell, axis: int) -> Iterator[Cell]:
        """The cell cut along an axis, from left to right; for odd k, the part that holds its point keeps it."""
        for i, (low, high) in enumerate(self._parts(cell, axis)):
            yield self._child(cell, axis, i, low, high)

    def _able(self, cell: Cell, axis: int) -> bool:
        if self.sides[axis] is None:
            return bool(self.k ** cell.splits[axis] < FINEST)
        return cell.highs[axis] - cell.lows[axis] > 1

    def _parts(self, cell: Cell, axis: int) -> list[tuple[int, int]]:
        low, side = cell.lows[axis], self.sides[axis]
        if side is None:
            return [(self.k * low + i, self.k * low + i + 1) for i in range(self.k)]
        return side.parts(low, cell.highs[axis], self.k)

    def _child(self, cell: Cell, axis: int, i: int, low: int, high: int) -> Cell:
        side, name = self.sides[axis], self.cube.axes[axis].name
        splits = _with(cell.splits, axis, cell.splits[axis] + 1)
        pick, point = cell.picks[axis], cell.point.copy()
        if side is None:
            point[axis] = (2 * low + 1) / (2 * self.k ** splits[axis])
            value = self.cube.axes[axis].value(float(point[axis]))
        else:
            kept = self.k % 2 == 1 and low <= pick < high
            pick = pick if kept else side.middle(low, high)
            point[axis], value = side.unit(pick), side.value(pick)
        h, j = cell.h + 1, self.k * cell.j + i
        params = {**cell.params, name: value}
        return Cell(
            name=f"{h}.{j}", h=h, j=j, point=point, params=params, key=tuple(params.values()), splits=splits,
            lows=_with(cell.lows, axis, low), highs=_with(cell.highs, axis, high),
            picks=_with(cell.picks, axis, pick),
        )  # fmt: skip


class _Values:
    """The values of an axis that can be counted, by their place 0 .. size - 1."""

    def __init__(self, axis: Axis) -> None:
        assert axis.size is not None, "an interval cannot be counted"
        self.axis, self.size = axis, axis.size
        d = axis.distribution
        log = not isinstance(d, CategoricalDistribution) and bool(getattr(d, "log", False))
        self.even = not log and axis.hint.normal is None
        self._edges: dict[int, float] = {0: 0.0, self.size: 1.0}

    def value(self, place: int) -> Any:  # noqa: ANN401 - whatever the axis holds
        """The value at a place."""
        return self.axis.nth(place)

    def unit(self, place: int) -> float:
        """Where the axis has that value."""
        return self.axis.unit(self.value(place))

    def middle(self, low: int, high: int) -> int:
        """The place of the value in the middle of the share of [low, high)."""
        if self.even:
            return (low + high) // 2
        place = self._place((self._edge(low) + self._edge(high)) / 2)
        return min(max(place, low), high - 1)

    def parts(self, low: int, high: int, k: int) -> list[tuple[int, int]]:
        """Up to k parts of [low, high) with nearly equal shares, none empty."""
        count = high - low
        if count <= k:
            return [(place, place + 1) for place in range(low, high)]
        cuts = [low, *(self._cut(low, high, i, k) for i in range(1, k)), high]
        for i in range(1, k):
            cuts[i] = min(max(cuts[i], cuts[i - 1] + 1), high - (k - i))
        return list(pairwise(cuts))

    def _cut(self, low: int, high: int, i: int, k: int) -> int:
        if self.even:
            return low + (2 * (high - low) * i + k) // (2 * k)
        left, right = self._edge(low), self._edge(high)
        unit = left + (right - left) * i / k
        place = self._place(unit)
        return place if unit - self._edge(place) < self._edge(place + 1) - unit else place + 1

    def _edge(self, place: int) -> float:
        """Where the share of a place begins: by halving, since a prior measure bends the axis."""
        if self.even:
            return place / self.size
        if place not in self._edges:
            left, right = 0.0, 1.0
            for _ in range(45):
                unit = (left + right) / 2
                left, right = (unit, right) if self._place(unit) < place else (left, unit)
            self._edges[place] = right
        return self._edges[place]

    def _place(self, unit: float) -> int:
        d, value = self.axis.distribution, self.axis.value(unit)
        if isinstance(d, CategoricalDistribution):
            return int(d.to_internal_repr(value))
        assert isinstance(d, (IntDistribution, FloatDistribution)), "Optuna has three distributions"
        return round((value - d.low) / d.step) if d.step else 0


def _with(values: tuple[int, ...], index: int, value: int) -> tuple[int, ...]:
    return (*values[:index], value, *values[index + 1 :])

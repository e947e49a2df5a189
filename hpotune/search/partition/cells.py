"""Cells of the unit cube (boxes, each represented by one point), and their division into k parts along an axis.

Pure arithmetic: no study, no objective values. Continuous axes are divided into k equal parts, and positions are whole
numbers of parts, so that rounding never decides which edge is longer. Discrete axes (whole numbers, steps, categories
in the order of their list) are divided between values: cells share no value, and a single value is not divided.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hpotune.search.base.unit_cube import Axis, Cube, Params

MAX_PARTS = 10**12
"""Parts of a continuous axis above which it is not divided: closer points differ by rounding only."""


@dataclass(kw_only=True, slots=True, eq=False)
class Candidate:
    """A point that a search may evaluate."""

    name: str
    """Its name in the stored record of an ask."""
    point: np.ndarray
    """In the unit cube, discrete values at the middle of their section. Shape (d,)."""
    params: Params
    key: Hashable
    """Equal for candidates with equal values."""


@dataclass(kw_only=True, slots=True, eq=False)
class Cell(Candidate):
    """A box of the unit cube, named `depth.index`; Munos 2011 writes (h, j) for depth and index."""

    depth: int
    index: int
    lows: tuple[int, ...]
    """By axis. Continuous: number of the part, of k ** splits; discrete: index of the first value."""
    highs: tuple[int, ...]
    """One more than the last part or index."""
    splits: tuple[int, ...]
    """How often each axis was divided."""
    picks: tuple[int, ...]
    """Discrete axes: index of the value of the cell's point."""


class Partition:
    """The rule that divides cells into k parts, k >= 2."""

    def __init__(self, cube: Cube, k: int) -> None:
        self.cube, self.k = cube, k
        self.sides = [_DiscreteAxis(axis) if axis.size is not None else None for axis in cube.axes]

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
            name="0.0", depth=0, index=0, lows=(0,) * d, splits=(0,) * d, picks=tuple(picks),
            highs=tuple(side.size if side else 1 for side in self.sides),
            point=np.array(point, dtype=float), key=tuple(values),
            params={axis.name: value for axis, value in zip(self.cube.axes, values, strict=True)},
        )  # fmt: skip

    def divisible(self, cell: Cell) -> list[int]:
        """Axes along which a cell can be divided, the longest edge (fewest splits) first; of equals the first axis."""
        able = [index for index in range(len(self.sides)) if self._able(cell, index)]
        return sorted(able, key=lambda index: cell.splits[index])

    def children(self, cell: Cell, axis: int) -> Iterator[Cell]:
        """The parts of a cell along an axis, from left to right; for odd k, the part with the cell's point keeps it."""
        for i, (low, high) in enumerate(self._parts(cell, axis)):
            yield self._child(cell, axis, i, low, high)

    def _able(self, cell: Cell, axis: int) -> bool:
        if self.sides[axis] is None:
            return bool(self.k ** cell.splits[axis] < MAX_PARTS)
        return cell.highs[axis] - cell.lows[axis] > 1

    def _parts(self, cell: Cell, axis: int) -> list[tuple[int, int]]:
        low, side = cell.lows[axis], self.sides[axis]
        if side is None:
            return [(self.k * low + i, self.k * low + i + 1) for i in range(self.k)]
        return side.parts(low, cell.highs[axis], self.k)

    def _child(self, cell: Cell, axis: int, i: int, low: int, high: int) -> Cell:
        side, name = self.sides[axis], self.cube.axes[axis].name
        splits = _replaced(cell.splits, axis, cell.splits[axis] + 1)
        pick, point = cell.picks[axis], cell.point.copy()
        if side is None:
            point[axis] = (2 * low + 1) / (2 * self.k ** splits[axis])
            value = self.cube.axes[axis].value(float(point[axis]))
        else:
            kept = self.k % 2 == 1 and low <= pick < high
            pick = pick if kept else side.middle(low, high)
            point[axis], value = side.unit(pick), side.value(pick)
        h, j = cell.depth + 1, self.k * cell.index + i
        params = {**cell.params, name: value}
        return Cell(
            name=f"{h}.{j}", depth=h, index=j, point=point, params=params, key=tuple(params.values()), splits=splits,
            lows=_replaced(cell.lows, axis, low), highs=_replaced(cell.highs, axis, high),
            picks=_replaced(cell.picks, axis, pick),
        )  # fmt: skip


class _DiscreteAxis:
    """The values of a discrete axis by their index 0 .. size - 1."""

    def __init__(self, axis: Axis) -> None:
        assert axis.size is not None, "the axis is discrete"
        self.axis, self.size = axis, axis.size
        d = axis.distribution
        log = not isinstance(d, CategoricalDistribution) and bool(getattr(d, "log", False))
        self.even = not log and axis.hint.normal is None
        self._edges: dict[int, float] = {0: 0.0, self.size: 1.0}

    def value(self, index: int) -> Any:  # noqa: ANN401 - whatever the axis holds
        """The value of an index."""
        return self.axis.nth(index)

    def unit(self, index: int) -> float:
        """The coordinate of that value in the unit cube."""
        return self.axis.unit(self.value(index))

    def middle(self, low: int, high: int) -> int:
        """The index of the value in the middle of the section of [low, high)."""
        if self.even:
            return (low + high) // 2
        index = self._index((self._edge(low) + self._edge(high)) / 2)
        return min(max(index, low), high - 1)

    def parts(self, low: int, high: int, k: int) -> list[tuple[int, int]]:
        """Up to k parts of the indices [low, high), none empty, with nearly equal sections of the axis."""
        count = high - low
        if count <= k:
            return [(index, index + 1) for index in range(low, high)]
        cuts = [low, *(self._cut(low, high, i, k) for i in range(1, k)), high]
        for i in range(1, k):
            cuts[i] = min(max(cuts[i], cuts[i - 1] + 1), high - (k - i))
        return list(pairwise(cuts))

    def _cut(self, low: int, high: int, i: int, k: int) -> int:
        if self.even:
            return low + (2 * (high - low) * i + k) // (2 * k)
        left, right = self._edge(low), self._edge(high)
        unit = left + (right - left) * i / k
        index = self._index(unit)
        return index if unit - self._edge(index) < self._edge(index + 1) - unit else index + 1

    def _edge(self, index: int) -> float:
        """The coordinate at which the section of an index begins.

        Found by bisection where sections differ (logarithmic ranges, prior measures): the value is known as a function
        of the coordinate, but not the inverse.
        """
        if self.even:
            return index / self.size
        if index not in self._edges:
            left, right = 0.0, 1.0
            for _ in range(45):
                unit = (left + right) / 2
                left, right = (unit, right) if self._index(unit) < index else (left, unit)
            self._edges[index] = right
        return self._edges[index]

    def _index(self, unit: float) -> int:
        d, value = self.axis.distribution, self.axis.value(unit)
        if isinstance(d, CategoricalDistribution):
            return int(d.to_internal_repr(value))
        assert isinstance(d, (IntDistribution, FloatDistribution)), "Optuna has three distributions"
        return round((value - d.low) / d.step) if d.step else 0


def _replaced(values: tuple[int, ...], index: int, value: int) -> tuple[int, ...]:
    return (*values[:index], value, *values[index + 1 :])

"""DIRECT: every cell that some Lipschitz constant makes the most promising one is trisected along its longest edges.

In an iteration, those are the cells on the lower right hull of (size, value): the best of their size, all of equals,
better than `epsilon` times the best value could hope for. Each one's neighbours at a third along every longest edge are
evaluated; then it is cut edge by edge, the edge with the best neighbour first, so that good points get large cells.
Size: half the diagonal. `local`: the variant of Gablonsky and Kelley, size the longest edge and one cell of each size.
Side by side: the neighbours of all chosen cells are handed out at once; then the next iteration looks at cells whose
value is known; where there are none, the largest cell that runs is taken, then one is cut before all its neighbours are
known. A parameter that is down to one value has no edge.
Source: Jones, Perttunen and Stuckman 1993, Lipschitzian optimization without the Lipschitz constant; Gablonsky and
Kelley 2001, A locally-biased form of the DIRECT algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.options import number, switch
from hpotune.search.base.sampler import Setup
from hpotune.search.base.unit_cube import Cube, Params
from hpotune.search.partition.cells import Cell, Grid, Spot
from hpotune.search.partition.tree import Tree
from hpotune.search.partition.tree_replay import TreeSampler

TIE = 1e-13
"""Values of cells of one size this close are equal."""


@dataclass(kw_only=True, slots=True, eq=False)
class Cross:
    """A cell and its neighbours along the longest edges, not cut yet."""

    cell: Cell
    arms: dict[int, list[Cell]]
    """By edge: the other parts, whose points are the neighbours."""


class DirectTree(Tree):
    """The iterations."""

    def __init__(
        self,
        cube: Cube,
        *,
        epsilon: float = 1e-4,
        local: bool = False,
        fits: Callable[[Params], bool] = lambda params: True,
    ) -> None:
        super().__init__(cube, fits=fits)
        self.grid, self.epsilon, self.local = Grid(cube, 3), epsilon, local
        self.leaves: list[Cell] = []
        """Cells that may be cut, in the order in which they came to be."""
        self.crosses: list[Cross] = []
        self.sizes: dict[tuple[int, ...], float] = {}

    def _spots(self) -> Iterator[Spot | None]:
        root = self.grid.root()
        self._add(root)
        yield from self._open(root)
        while True:
            for cross in [cross for cross in self.crosses if self._ready(cross)]:
                self._cut(cross)
            chosen = self._hull() or self._largest()
            if not chosen and not self.crosses:
                return
            if not chosen:
                self._cut(self.crosses[0])
            for cell in chosen:
                yield from self._cross(cell)

    def _cross(self, cell: Cell) -> Iterator[Spot | None]:
        self.leaves.remove(cell)
        arms = {axis: self._arm(cell, axis) for axis in self._longest(cell)}
        self.crosses.append(Cross(cell=cell, arms=arms))
        for arm in arms.values():
            for neighbour in reversed(arm):
                yield from self._open(neighbour)

    def _longest(self, cell: Cell) -> list[int]:
        axes = self.grid.divisible(cell)
        return [axis for axis in axes if cell.splits[axis] == cell.splits[axes[0]]]

    def _arm(self, cell: Cell, axis: int) -> list[Cell]:
        return [child for child in self.grid.children(cell, axis) if child.key != cell.key]

    def _ready(self, cross: Cross) -> bool:
        return all(self.gain(cell) is not None for arm in cross.arms.values() for cell in arm)

    def _cut(self, cross: Cross) -> None:
        """The edge with the best neighbour first; what is not known yet counts as the worst."""
        self.crosses.remove(cross)
        best = {
            axis: max(-math.inf if (gain := self.gain(cell)) is None else gain for cell in arm)
            for axis, arm in cross.arms.items()
        }
        rest = cross.cell
        for axis in sorted(best, key=lambda axis: -best[axis]):
            parts = list(self.grid.children(rest, axis))
            for part in reversed(parts):
                if part.key != rest.key:
                    self._add(part)
            rest = next(part for part in parts if part.key == rest.key)
        self._add(rest)

    def _add(self, cell: Cell) -> None:
        if self.grid.divisible(cell):
            self.leaves.append(cell)

    def size(self, cell: Cell) -> float:
        """Half the diagonal, or the longest edge; edges of one value have no length."""
        edges = self.grid.divisible(cell)
        splits = tuple(cell.splits[axis] for axis in edges)
        if splits not in self.sizes:
            squares = math.fsum(9.0**-count for count in splits)
            self.sizes[splits] = 3.0 ** -splits[0] if self.local else math.sqrt(squares) / 2
        return self.sizes[splits]

    def _hull(self) -> list[Cell]:
        """The potentially optimal cells that are known, large ones first (Jones et al. 1993, definition 4.1)."""
        columns: dict[float, list[tuple[float, Cell]]] = {}
        for cell in self.leaves:
            if (gain := self.gain(cell)) is not None:
                columns.setdefault(self.size(cell), []).append((-gain, cell))
        least = {size: min(value for value, _ in column) for size, column in columns.items()}
        best = self.best if math.isfinite(self.best) else self.worst
        hope = -best - self.epsilon * abs(best)
        found: list[Cell] = []
        for size, value in sorted(least.items(), reverse=True):
            steep = [(other - value) / (wide - size) for wide, other in least.items() if wide > size]
            flat = [(value - other) / (size - small) for small, other in least.items() if small < size]
            slope = min(steep, default=math.inf)
            if slope <= 0 or max(flat, default=-math.inf) > slope or value - slope * size > hope:
                continue
            equal = [cell for own, cell in columns[size] if own - value <= TIE]
            found += equal[:1] if self.local else equal
        return found

    def _largest(self) -> list[Cell]:
        """The largest cell whose value has not come."""
        return [max(self.leaves, key=self.size)] if self.leaves else []


class DirectSampler(TreeSampler):
    """DIRECT, continued from a study's trials."""

    def __init__(self, setup: Setup | None = None) -> None:
        super().__init__(setup)
        self.epsilon = number(self.setup.options, "epsilon", 1e-4, low=0.0, high=1.0)
        self.local = switch(self.setup.options, "local", default=False)

    def tree(self, cube: Cube, fits: Callable[[Params], bool]) -> Tree:
        """The search before its first ask."""
        return DirectTree(cube, epsilon=self.epsilon, local=self.local, fits=fits)


ALGORITHM = Algorithm(
    make=DirectSampler,
    when="a deterministic score of one to four parameters and a hundred trials or more; never as a default",
    cost="0.005 s at 50 trials, 0.03 s at 200",
    parallel="neighbours of all chosen cells side by side; never idle",
    source="Jones et al. 1993; with `local`, Gablonsky and Kelley 2001",
    options={
        "epsilon": "how much better than the best a cell must be able to be, as a share of the best (1e-4)",
        "local": "the locally biased variant, which cuts fewer large cells (false)",
    },
)

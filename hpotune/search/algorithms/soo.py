"""Simultaneous optimistic optimisation: one leaf of each depth is cut, if it is better than all shallower ones.

Each sweep goes from the root down, the depth read once at its start; a leaf with a larger value than every leaf that
this sweep has cut before is cut into k along its longest edge (the fewest cuts, then the first axis); an odd k's middle
child keeps its parent's point and costs nothing. Ties: the leftmost. Value of a broken trial, and of a cell that breaks
a constraint known before: the worst seen.
Side by side: an expansion's children are handed out at once, the sweep goes on with what is known; a leaf that runs is
not selectable. Where a sweep finds nothing, the shallowest leaf that runs is cut before its value has come.
Source: Munos 2011, Optimistic optimization of a deterministic function without the knowledge of its smoothness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.options import whole
from hpotune.search.base.sampler import Setup
from hpotune.search.base.unit_cube import Cube, Params
from hpotune.search.partition.cells import Cell, Grid, Spot
from hpotune.search.partition.tree import Tree
from hpotune.search.partition.tree_replay import TreeSampler


class SooTree(Tree):
    """The sweeps. `k`: children of a cell; `h_max`: the deepest that a sweep cuts, None without a limit."""

    def __init__(
        self,
        cube: Cube,
        *,
        k: int = 3,
        h_max: int | None = None,
        fits: Callable[[Params], bool] = lambda params: True,
    ) -> None:
        super().__init__(cube, fits=fits)
        self.grid, self.h_max = Grid(cube, k), h_max
        self.leaves: list[list[Cell]] = []
        """Cells that may be cut, by depth."""
        self.cuts: list[tuple[int, int, int]] = []
        """(sweep, depth, index) of every cell that was cut."""

    def value(self, cell: Cell) -> float | None:
        """By what leaves are compared; None: not selectable."""
        return self.gain(cell)

    def settle(self, cell: Cell) -> Iterator[Spot | None]:
        """The cell where it must be evaluated."""
        yield from self._open(cell)

    def rest(self) -> Iterator[Spot | None]:
        """What is left to evaluate when no cell can be cut."""
        yield from ()

    def _spots(self) -> Iterator[Spot | None]:
        root = self.grid.root()
        self._add(root)
        yield from self.settle(root)
        sweep = 0
        while True:
            cuts = len(self.cuts)
            yield from self._sweep(sweep)
            if len(self.cuts) == cuts:
                leaf = self._any()
                if leaf is None:
                    yield from self.rest()
                    return
                yield from self._cut(leaf, sweep)
            sweep += 1

    def _sweep(self, sweep: int) -> Iterator[Spot | None]:
        top, depth = -np.inf, len(self.leaves)
        for h in range(min(depth, depth if self.h_max is None else self.h_max + 1)):
            leaf = self._best(h)
            if leaf is None:
                continue
            value = self.value(leaf)
            if value is not None and value > top:
                top = value
                yield from self._cut(leaf, sweep)

    def _cut(self, cell: Cell, sweep: int) -> Iterator[Spot | None]:
        self.cuts.append((sweep, cell.h, cell.j))
        self.leaves[cell.h].remove(cell)
        children = list(self.grid.children(cell, self.grid.divisible(cell)[0]))
        for child in children:
            self._add(child)
        for child in children:
            yield from self.settle(child)

    def _add(self, cell: Cell) -> None:
        while len(self.leaves) <= cell.h:
            self.leaves.append([])
        if self.grid.divisible(cell):
            self.leaves[cell.h].append(cell)

    def _best(self, h: int) -> Cell | None:
        """The leaf of a depth with the largest value; of equals one that has a gain of its own, then the leftmost."""
        known = [(value, leaf) for leaf in self.leaves[h] if (value := self.value(leaf)) is not None]
        if not known:
            return None
        return max(known, key=lambda pair: (pair[0], self.sound(pair[1]), -pair[1].j))[1]

    def _any(self) -> Cell | None:
        """Where no sweep finds one: the best leaf that is known, else the shallowest that runs."""
        found = [leaf for h in range(len(self.leaves)) if (leaf := self._best(h)) is not None]
        if found:
            return max(found, key=lambda leaf: (self.value(leaf), -leaf.h))
        return next((min(leaves, key=lambda leaf: leaf.j) for leaves in self.leaves if leaves), None)


class SooSampler(TreeSampler):
    """Simultaneous optimistic optimisation, continued from a study's trials."""

    def __init__(self, setup: Setup | None = None) -> None:
        super().__init__(setup)
        self.k = whole(self.setup.options, "k", 3, low=2)
        unlimited = self.setup.options.get("h_max") is None
        self.h_max = None if unlimited else whole(self.setup.options, "h_max", 0, low=0)

    def tree(self, cube: Cube, fits: Callable[[Params], bool]) -> Tree:
        """The search before its first ask."""
        return SooTree(cube, k=self.k, h_max=self.h_max, fits=fits)


CELL_OPTIONS = {
    "k": "parts into which a cell is cut, along its longest edge; odd ones reuse the centre (3)",
    "h_max": "depth below which sweeps do not cut (no limit)",
}

ALGORITHM = Algorithm(
    make=SooSampler,
    when="to replay partition-based studies; a deterministic score and no idea how smooth it is; never as a default",
    cost="0.005 s at 50 trials, 0.02 s at 200",
    parallel="children of all selected cells side by side; never idle, at some loss of focus",
    source="Munos 2011",
    options=CELL_OPTIONS,
)

"""SOO, simultaneous optimistic optimization: at each depth of the tree, the best leaf is expanded if it is optimistic.

A sweep goes through the depths from the root down, as deep as the tree is at its start. At each depth it chooses the
leaf with the largest value (`_best_leaf`), and expands it if this value is larger than that of every leaf the sweep
has expanded so far. A cell is divided into k children along its longest edge (fewest splits, then the first axis). With
an odd k the middle child keeps the parent's point and needs no trial. Ties: the leftmost cell. A cell whose trial
failed, or that violates a constraint known before, has the worst value seen.
Parallel: the children of an expansion are evaluated at the same time, and the sweep continues with the known values; a
leaf whose trial runs cannot be chosen. Where a sweep expands nothing, `_fallback_leaf` is expanded, known or not.
Source: Munos 2011, Optimistic optimization of a deterministic function without the knowledge of its smoothness (SOO).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.options import int_option
from hpotune.search.base.sampler import SamplerSetup
from hpotune.search.base.unit_cube import Cube, Params
from hpotune.search.partition.cells import Candidate, Cell, Partition
from hpotune.search.partition.tree import PartitionTree
from hpotune.search.partition.tree_replay import TreeSampler


class SooTree(PartitionTree):
    """The sweeps of SOO. `k`: children of a cell; `h_max`: largest depth that a sweep expands, None: no limit."""

    def __init__(
        self,
        cube: Cube,
        *,
        k: int = 3,
        h_max: int | None = None,
        is_feasible: Callable[[Params], bool] = lambda params: True,
    ) -> None:
        super().__init__(cube, is_feasible=is_feasible)
        self.grid, self.h_max = Partition(cube, k), h_max
        self.leaves: list[list[Cell]] = []
        """Leaves that can be divided, by depth."""
        self.expansions: list[tuple[int, int, int]] = []
        """(sweep, depth, index) of every expanded cell, in order."""

    def leaf_value(self, cell: Cell) -> float | None:
        """The value by which leaves are compared; None: the leaf cannot be chosen."""
        return self.gain(cell)

    def evaluate_child(self, cell: Cell) -> Iterator[Candidate | None]:
        """The new child, if it must be evaluated."""
        yield from self._evaluate(cell)

    def remaining(self) -> Iterator[Candidate | None]:
        """Candidates that are left when no cell can be expanded."""
        yield from ()

    def _candidates(self) -> Iterator[Candidate | None]:
        root = self.grid.root()
        self._add_leaf(root)
        yield from self.evaluate_child(root)
        sweep = 0
        while True:
            cuts = len(self.expansions)
            yield from self._sweep(sweep)
            if len(self.expansions) == cuts:
                leaf = self._fallback_leaf()
                if leaf is None:
                    yield from self.remaining()
                    return
                yield from self._expand(leaf, sweep)
            sweep += 1

    def _sweep(self, sweep: int) -> Iterator[Candidate | None]:
        top, depth = -np.inf, len(self.leaves)
        for h in range(min(depth, depth if self.h_max is None else self.h_max + 1)):
            leaf = self._best_leaf(h)
            if leaf is None:
                continue
            value = self.leaf_value(leaf)
            if value is not None and value > top:
                top = value
                yield from self._expand(leaf, sweep)

    def _expand(self, cell: Cell, sweep: int) -> Iterator[Candidate | None]:
        self.expansions.append((sweep, cell.depth, cell.index))
        self.leaves[cell.depth].remove(cell)
        children = list(self.grid.children(cell, self.grid.divisible(cell)[0]))
        for child in children:
            self._add_leaf(child)
        for child in children:
            yield from self.evaluate_child(child)

    def _add_leaf(self, cell: Cell) -> None:
        while len(self.leaves) <= cell.depth:
            self.leaves.append([])
        if self.grid.divisible(cell):
            self.leaves[cell.depth].append(cell)

    def _best_leaf(self, h: int) -> Cell | None:
        """The leaf with the largest value at a depth; of equals one with a gain of its own, then the leftmost."""
        known = [(value, leaf) for leaf in self.leaves[h] if (value := self.leaf_value(leaf)) is not None]
        if not known:
            return None
        return max(known, key=lambda pair: (pair[0], self.has_own_gain(pair[1]), -pair[1].index))[1]

    def _fallback_leaf(self) -> Cell | None:
        """The leaf to expand where a sweep expanded none: the best known one, else the shallowest whose trial runs."""
        found = [leaf for h in range(len(self.leaves)) if (leaf := self._best_leaf(h)) is not None]
        if found:
            return max(found, key=lambda leaf: (self.leaf_value(leaf), -leaf.depth))
        return next((min(leaves, key=lambda leaf: leaf.index) for leaves in self.leaves if leaves), None)


class SooSampler(TreeSampler):
    """SOO, rebuilt from the trials of a study for each ask."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        self.k = int_option(self.setup.options, "k", 3, low=2)
        unlimited = self.setup.options.get("h_max") is None
        self.h_max = None if unlimited else int_option(self.setup.options, "h_max", 0, low=0)

    def tree(self, cube: Cube, is_feasible: Callable[[Params], bool]) -> PartitionTree:
        """The tree before its first ask."""
        return SooTree(cube, k=self.k, h_max=self.h_max, is_feasible=is_feasible)


CELL_OPTIONS = {
    "k": "children of a cell, along its longest edge; with an odd number the middle one reuses the centre (3)",
    "h_max": "largest depth at which a sweep expands cells (no limit)",
}

ALGORITHM = Algorithm(
    make=SooSampler,
    when="to reproduce partition-based studies; a deterministic score of unknown smoothness; never as a default",
    cost="0.005 s at 50 trials, 0.02 s at 200",
    parallel="children of all expanded cells at the same time; no idle workers, but less exploitation",
    source="Munos 2011",
    options=CELL_OPTIONS,
)

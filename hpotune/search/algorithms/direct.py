"""DIRECT (dividing rectangles): all potentially optimal cells are trisected along their longest edges.

A cell is potentially optimal if its lower bound (values are minimized here: value = -gain) is the lowest for some
Lipschitz constant: the cells on the lower right convex hull of (size, value), the best of their size with all equals,
whose bound is better than the best value by `epsilon` times its magnitude. At each, the points one third along every
longest edge (the neighbours) are evaluated. Then it is divided edge by edge, the edge with the best neighbour first, so
that good points get large cells. Size: half the diagonal. `local`: the variant of Gablonsky and Kelley (DIRECT-L); the
size is the longest edge, and one cell of each size is chosen.
Parallel: the neighbours of all chosen cells are evaluated at the same time; the next iteration chooses among cells with
known values. Where there are none, the largest cell is taken; where there is none, a cell is divided before all its
neighbours are known. An axis on which a cell has a single value has no edge.
Source: Jones, Perttunen and Stuckman 1993, Lipschitzian optimization without the Lipschitz constant; Gablonsky and
Kelley 2001, A locally-biased form of the DIRECT algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.options import bool_option, float_option
from hpotune.search.base.sampler import SamplerSetup
from hpotune.search.base.unit_cube import Cube, Params
from hpotune.search.partition.cells import Candidate, Cell, Partition
from hpotune.search.partition.tree import PartitionTree
from hpotune.search.partition.tree_replay import TreeSampler

TIE_TOLERANCE = 1e-13
"""Largest difference of equal values among cells of one size."""


@dataclass(kw_only=True, slots=True, eq=False)
class PendingDivision:
    """A chosen cell that waits for the values of its neighbours before it is divided."""

    cell: Cell
    neighbours: dict[int, list[Cell]]
    """By axis: the neighbours along this edge (the outer two of three parts)."""


class DirectTree(PartitionTree):
    """The iterations of DIRECT."""

    def __init__(
        self,
        cube: Cube,
        *,
        epsilon: float = 1e-4,
        local: bool = False,
        is_feasible: Callable[[Params], bool] = lambda params: True,
    ) -> None:
        super().__init__(cube, is_feasible=is_feasible)
        self.grid, self.epsilon, self.local = Partition(cube, 3), epsilon, local
        self.leaves: list[Cell] = []
        """Cells that can be divided, in the order of their creation."""
        self.pending_divisions: list[PendingDivision] = []
        self.sizes: dict[tuple[int, ...], float] = {}

    def _candidates(self) -> Iterator[Candidate | None]:
        root = self.grid.root()
        self._add_leaf(root)
        yield from self._evaluate(root)
        while True:
            for division in [one for one in self.pending_divisions if self._is_complete(one)]:
                self._divide(division)
            chosen = self._potentially_optimal() or self._largest_unknown()
            if not chosen and not self.pending_divisions:
                return
            if not chosen:
                self._divide(self.pending_divisions[0])
            for cell in chosen:
                yield from self._sample_neighbours(cell)

    def _sample_neighbours(self, cell: Cell) -> Iterator[Candidate | None]:
        """The neighbours of a chosen cell, to evaluate; it is divided when their values are known."""
        self.leaves.remove(cell)
        by_axis = {axis: self._neighbours(cell, axis) for axis in self._longest_edges(cell)}
        self.pending_divisions.append(PendingDivision(cell=cell, neighbours=by_axis))
        for neighbours in by_axis.values():
            for neighbour in reversed(neighbours):
                yield from self._evaluate(neighbour)

    def _longest_edges(self, cell: Cell) -> list[int]:
        axes = self.grid.divisible(cell)
        return [axis for axis in axes if cell.splits[axis] == cell.splits[axes[0]]]

    def _neighbours(self, cell: Cell, axis: int) -> list[Cell]:
        return [child for child in self.grid.children(cell, axis) if child.key != cell.key]

    def _is_complete(self, division: PendingDivision) -> bool:
        return all(
            self.gain(cell) is not None for neighbours in division.neighbours.values() for cell in neighbours
        )

    def _divide(self, division: PendingDivision) -> None:
        """Divide the cell, the edge with the best neighbour first; a neighbour without a value counts as the worst."""
        self.pending_divisions.remove(division)
        best = {
            axis: max(-math.inf if (gain := self.gain(cell)) is None else gain for cell in neighbours)
            for axis, neighbours in division.neighbours.items()
        }
        rest = division.cell
        for axis in sorted(best, key=lambda axis: -best[axis]):
            parts = list(self.grid.children(rest, axis))
            for part in reversed(parts):
                if part.key != rest.key:
                    self._add_leaf(part)
            rest = next(part for part in parts if part.key == rest.key)
        self._add_leaf(rest)

    def _add_leaf(self, cell: Cell) -> None:
        if self.grid.divisible(cell):
            self.leaves.append(cell)

    def size(self, cell: Cell) -> float:
        """Half the diagonal, or with `local` the longest edge; an axis with a single value has no edge."""
        edges = self.grid.divisible(cell)
        splits = tuple(cell.splits[axis] for axis in edges)
        if splits not in self.sizes:
            squares = math.fsum(9.0**-count for count in splits)
            self.sizes[splits] = 3.0 ** -splits[0] if self.local else math.sqrt(squares) / 2
        return self.sizes[splits]

    def _potentially_optimal(self) -> list[Cell]:
        """The potentially optimal cells with known values, large ones first (Jones et al. 1993, definition 4.1).

        With value f = -gain and size d, cell j is potentially optimal if for some K > 0 and all cells i
            f_j - K d_j <= f_i - K d_i        and        f_j - K d_j <= f_min - epsilon |f_min|.
        Larger cells bound K from above, smaller ones from below; the second rule is checked with the largest K.
        """
        columns: dict[float, list[tuple[float, Cell]]] = {}
        for cell in self.leaves:
            if (gain := self.gain(cell)) is not None:
                columns.setdefault(self.size(cell), []).append((-gain, cell))
        least = {size: min(value for value, _ in column) for size, column in columns.items()}
        best = self.best if math.isfinite(self.best) else self.worst
        required = -best - self.epsilon * abs(best)
        found: list[Cell] = []
        for size, value in sorted(least.items(), reverse=True):
            upper_slopes = [(other - value) / (wide - size) for wide, other in least.items() if wide > size]
            lower_slopes = [
                (value - other) / (size - small) for small, other in least.items() if small < size
            ]
            slope = min(upper_slopes, default=math.inf)
            if slope <= 0 or max(lower_slopes, default=-math.inf) > slope or value - slope * size > required:
                continue
            equal = [cell for own, cell in columns[size] if own - value <= TIE_TOLERANCE]
            found += equal[:1] if self.local else equal
        return found

    def _largest_unknown(self) -> list[Cell]:
        """The largest cell, whose value is not known; empty where there is no cell."""
        return [max(self.leaves, key=self.size)] if self.leaves else []


class DirectSampler(TreeSampler):
    """DIRECT, rebuilt from the trials of a study for each ask."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        self.epsilon = float_option(self.setup.options, "epsilon", 1e-4, low=0.0, high=1.0)
        self.local = bool_option(self.setup.options, "local", default=False)

    def tree(self, cube: Cube, is_feasible: Callable[[Params], bool]) -> PartitionTree:
        """The tree before its first ask."""
        return DirectTree(cube, epsilon=self.epsilon, local=self.local, is_feasible=is_feasible)


ALGORITHM = Algorithm(
    make=DirectSampler,
    when="a deterministic score of one to four parameters and a hundred trials or more; never as a default",
    cost="0.005 s at 50 trials, 0.03 s at 200",
    parallel="neighbours of all chosen cells at the same time; no idle workers",
    source="Jones et al. 1993; with `local`, Gablonsky and Kelley 2001",
    options={
        "epsilon": "how much better than the best a cell must be able to be, as a share of the best (1e-4)",
        "local": "the locally biased variant, which divides fewer large cells (false)",
    },
)

"""LHS, Latin hypercube sampling: n rows, one in each of the n strata of every column; the best of many by maximin.

Rows beyond the first design double it: each stratum is halved, and the new rows take the empty halves, so that 2n rows
are a Latin hypercube again. Discrete values have one common offset within their strata, so that each value gets its
share of the rows, rounded down or up.
Source: McKay, Beckman and Conover 1979; maximin: Johnson, Moore and Ylvisaker 1990; doubling: Qian 2009 (nested).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.design import DesignSampler
from hpotune.search.base.options import int_option
from hpotune.search.base.sampler import SamplerSetup
from hpotune.search.base.unit_cube import Axis, Hint

DESIGNS = 100
"""Designs compared; a hundred times more increase the minimum distance by a few per cent."""
MAX_DISTANCES = 10_000_000
"""Most distances computed for one choice of a design, about 0.1 s: fewer large designs are compared."""
MAX_JITTERS = 5
"""Redraws within the strata of a row before it may lie anywhere: a stratum of a finite space can hold one point."""
ROWS_KEY = "hpotune:lhs_rows"
"""System attribute of the study: rows of the first design. A study whose budget is extended keeps them."""

ColumnKind = tuple[int | None, bool]
"""What distances need to know of a column: number of values (None: continuous), and whether they are unordered."""


class LatinSampler(DesignSampler):
    """Rows of a Latin hypercube with a column for each name."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        room = max(1, self.setup.trials - len(self.setup.start_points))
        self.first = int_option(self.setup.options, "rows", room, low=1)
        self.designs = int_option(self.setup.options, "designs", DESIGNS, low=1)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Read the size of the first design from the study; written to it where there is none."""
        found = study._storage.get_study_system_attrs(study._study_id).get(ROWS_KEY)
        if found is None:
            study._storage.set_study_system_attr(study._study_id, ROWS_KEY, self.first)
        self.first = int(found or self.first)

    def unit(self, row: int, column: int, axis: Axis) -> float:
        """The coordinate of that row; redraws lie elsewhere in its stratum, after MAX_JITTERS anywhere."""
        kinds = tuple(self._look(name) for name in self.columns)
        size = self.first
        while size <= row:
            size *= 2
        shared = axis.size is not None
        rows = latin_hypercube(
            seed=self.setup.seed,
            first=self.first,
            size=size,
            kinds=kinds,
            designs=self.designs,
            shared=shared,
        )
        if not self.setup.salt:
            return float(rows[row, column])
        if self.setup.salt > MAX_JITTERS:
            return self.random_coordinate(row, column)
        return (int(rows[row, column] * size) + self.random_coordinate(row, column)) / size

    def _look(self, name: str) -> ColumnKind:
        found = (self.setup.space or {}).get(name)
        if found is None:
            return None, False
        axis = Axis(name=name, distribution=found, hint=self.setup.hints.get(name, Hint()))
        return axis.size, axis.unordered


@lru_cache(maxsize=16)
def latin_hypercube(
    *, seed: int, first: int, size: int, kinds: tuple[ColumnKind, ...], designs: int, shared: bool
) -> np.ndarray:
    """A Latin hypercube of `first` rows, doubled until it has `size` rows. Shape (size, columns), in [0, 1].

    `kinds`: by column. `designs`: candidates of which the one with the largest minimum distance is taken. `shared`:
    whether the rows of a column have one common offset within their strata (discrete columns).
    """
    cells = _maximin_permutations(
        np.empty((0, len(kinds))), first, kinds, designs, np.random.default_rng([seed, first])
    )
    units = _points_in_strata(cells, first, shared, seed)
    while len(units) < size:
        now = len(units)
        order = _maximin_permutations(
            (units * now).astype(int), now, kinds, designs, np.random.default_rng([seed, 2 * now])
        )
        empty = np.empty_like(order)
        for column in range(len(kinds)):
            halves = (units[:, column] * 2 * now).astype(int)
            empty[halves // 2, column] = halves ^ 1  # by stratum: the empty half
        new = _points_in_strata(np.take_along_axis(empty, order, axis=0), 2 * now, shared, seed, of=units)
        units = np.vstack([units, new])
    return units


def _maximin_permutations(
    taken: np.ndarray, rows: int, kinds: tuple[ColumnKind, ...], designs: int, rng: np.random.Generator
) -> np.ndarray:
    """For each column a permutation of the strata 0 .. rows - 1, chosen by maximin distance. Shape (rows, columns).

    `taken`: strata of earlier rows, which count in the distances, shape (t, columns). Source: Johnson et al. 1990.
    """
    work = max(1, (rows + len(taken)) * rows * max(1, len(kinds)))
    best, widest = np.empty((rows, len(kinds)), dtype=int), -1.0
    for _ in range(max(1, min(designs, MAX_DISTANCES // work))):
        cells = np.array([rng.permutation(rows) for _ in kinds], dtype=int).reshape(len(kinds), rows).T
        width = _minimum_distance(
            _distance_coordinates(cells, rows, kinds), _distance_coordinates(taken, rows, kinds)
        )
        if width > widest:
            best, widest = cells, width
    return best


def _distance_coordinates(cells: np.ndarray, rows: int, kinds: tuple[ColumnKind, ...]) -> np.ndarray:
    """Coordinates in which distances are measured: discrete values at their middle, unordered ones equally far apart.

    Shapes: `cells` (n, columns) -> (n, columns or more): an unordered column becomes one-hot columns over sqrt(2), so
    that two different categories have distance 1.
    """
    middles, columns = (cells + 0.5) / rows, []
    for index, (size, unordered) in enumerate(kinds):
        column = middles[:, index]
        if size is not None and unordered:
            columns += list((np.floor(column * size) == np.arange(size)[:, None]) / np.sqrt(2.0))
        elif size is not None and size < rows:
            columns.append((np.floor(column * size) + 0.5) / size)
        else:
            columns.append(column)
    return np.asarray(np.array(columns).reshape(len(columns), len(cells)).T)


def _minimum_distance(new: np.ndarray, taken: np.ndarray) -> float:
    """The smallest distance of a new row (n, c) to another new row or to a taken one (t, c)."""
    from scipy.spatial.distance import cdist, pdist  # type: ignore[import-untyped]  # 0.1 s, only to draw

    inside = pdist(new).min() if len(new) > 1 else np.inf
    return float(min(inside, cdist(new, taken).min() if len(taken) else np.inf))


def _points_in_strata(
    cells: np.ndarray, rows: int, shared: bool, seed: int, *, of: np.ndarray | None = None
) -> np.ndarray:
    """Points within their strata. Shapes: (n, columns) -> (n, columns). `of`: rows whose common offset is continued."""
    rng = np.random.default_rng([seed, rows, 1])
    if not shared:
        return np.asarray((cells + rng.random(cells.shape)) / rows)
    offset = rng.random(cells.shape[1]) if of is None else of[0] * rows % 1.0
    return np.asarray((cells + offset) / rows)


ALGORITHM = Algorithm(
    make=LatinSampler,
    when="a fixed number of trials, spread evenly over each parameter; to see the effect of every parameter",
    cost="0.01 s; the first of a process 0.1 s",
    parallel="any number of workers",
    source="McKay et al. 1979; Johnson et al. 1990 (maximin); Qian 2009 (nested)",
    conditions=True,
    objectives=True,
    options={
        "rows": "rows of the first design (default: the budget without start points); later rows double it",
        "designs": f"designs compared by their smallest distance between rows (default {DESIGNS})",
    },
)

"""Grid search: every combination once, in an order that the seed determines.

Each trial takes the first point of the grid that no trial in the storage has, so failed trials, retries and start
points leave neither gaps nor repetitions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.history import History
from hpotune.search.base.options import choice_option
from hpotune.search.base.sampler import CubeSampler, SamplerSetup, SamplingContext
from hpotune.search.base.unit_cube import Axis, Cube

ORDERS = ("shuffled", "lexicographic")
MAX_SHUFFLED = 100_000
"""Grid size up to which the whole order is shuffled; in larger grids points are drawn until one is new."""
MAX_ENUMERATED = 1_000_000
"""Points enumerated for a feasible one: where constraints leave none, the search must end."""
ROUNDING = 1e-9
DEFAULT_POINTS = 5
"""Points on a float axis in a plain Optuna study, which has no option for it."""


class GridSampler(CubeSampler):
    """Proposes the first point of the grid that no trial has."""

    multi_objective = True

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        self.order = choice_option(self.setup.options, "order", ORDERS[0], allowed=ORDERS)
        if self.setup.space is None:
            return
        axes = Cube(self.setup.space).axes
        _check_names(self.setup.options.get("points"), [axis.name for axis in axes])
        points = math.prod(len(self.units(axis)) for axis in axes)
        if points < self.setup.trials:
            raise ValueError(
                f"the grid has {points} points, fewer than the {self.setup.trials} trials of the budget; "
                f"set budget.trials to {points} or less, or give more points or values"
            )

    def units(self, axis: Axis) -> list[float]:
        """The coordinates of the grid along an axis, bounds included: all values, or as many as `points` says.

        Raises: ValueError where a continuous axis has no number of points, or the number is invalid.
        """
        asked, size = self.setup.options.get("points"), axis.size
        by_name = isinstance(asked, Mapping)
        count = asked.get(axis.name) if isinstance(asked, Mapping) else asked
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise ValueError(f"points={asked!r} must be a whole number of at least 1, or one by name")
        if size is not None and (count is None or count >= size or not by_name):
            return [axis.unit(axis.nth(index)) for index in range(size)]
        if count is None and self.setup.space is not None:
            raise ValueError(
                f"{axis.name} has no step, so the grid needs its number of points; "
                f"set search.options.points: 5, or points: {{{axis.name}: 5}}"
            )
        count = count or DEFAULT_POINTS
        spread = np.linspace(0.0, 1.0, count) if count > 1 else np.array([0.5])
        return sorted({axis.unit(axis.value(float(unit))) for unit in spread})

    def history_from(
        self, trials: Sequence[FrozenTrial], cube: Cube, direction: StudyDirection, trial: FrozenTrial
    ) -> History:
        """The other trials; the points of pruned ones count as pending."""
        history = super().history_from(trials, cube, direction, trial)
        for other in trials:
            if other.state == TrialState.PRUNED and cube.contains(other.params):
                history = history.with_pending(cube.point(other.params))
        return history

    def propose(self, cube: Cube, history: History, context: SamplingContext) -> np.ndarray:
        """The first feasible grid point without a trial, after skipping `salt`; random if none is left. Shape (d,)."""
        units = [np.array(self.units(axis)) for axis in cube.axes]
        taken = {_grid_index(point, units) for point in history.known_points}
        free_rows = (row for row in islice(self._rows(units), MAX_ENUMERATED) if row not in taken)
        points = (np.array([u[i] for u, i in zip(units, row, strict=True)]) for row in free_rows)
        free = (point for point in points if self.setup.is_feasible(cube.params(point)))
        found = next(islice(free, self.setup.salt, None), None)
        return found if found is not None else context.rng.random(len(cube))

    def _rows(self, units: Sequence[np.ndarray]) -> Iterator[tuple[int, ...]]:
        """Indices of the grid points, each once; in lexicographic order the last axis changes fastest."""
        shape = [len(u) for u in units]
        size, rng = math.prod(shape), np.random.default_rng(self.setup.seed)
        if self.order == "lexicographic":
            indices: Iterator[int] = iter(range(size))
        elif size <= MAX_SHUFFLED:
            indices = iter(rng.permutation(size).tolist())
        else:
            indices = _random_indices(size, rng)
        for index in indices:
            row = []
            for count in reversed(shape):
                index, digit = divmod(index, count)
                row.append(digit)
            yield tuple(reversed(row))


def _random_indices(size: int, rng: np.random.Generator) -> Iterator[int]:
    """Different random numbers below `size`, which may be larger than a machine word."""
    seen: set[int] = set()
    while len(seen) < size:
        index = int.from_bytes(rng.bytes(size.bit_length() // 8 + 9), "big") % size
        if index not in seen:
            seen.add(index)
            yield index


def _grid_index(point: np.ndarray, units: Sequence[np.ndarray]) -> tuple[int, ...] | None:
    """Grid indices of a point (d,); None: it is not on the grid. Stored floats may differ in their last digits."""
    nearest = tuple(int(np.argmin(np.abs(u - x))) for u, x in zip(units, point, strict=True))
    gaps = [abs(u[i] - x) for u, i, x in zip(units, nearest, point, strict=True)]
    return nearest if max(gaps, default=0.0) < ROUNDING else None


def _check_names(asked: object, names: Sequence[str]) -> None:
    if isinstance(asked, Mapping) and (unknown := [name for name in asked if name not in names]):
        raise ValueError(f"points names {', '.join(map(str, unknown))}, which is not searched")


ALGORITHM = Algorithm(
    make=GridSampler,
    when="a few values of a few parameters, every combination wanted",
    cost="nothing",
    parallel="any number of workers",
    source="every combination once, in a seeded order",
    objectives=True,
    options={
        "points": "how many points a float without step has: one number for all, or {name: number}",
        "order": f"{ORDERS[0]} (default) or {ORDERS[1]}: the last parameter changes quickest",
    },
)

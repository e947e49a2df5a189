"""The base class of population samplers (PSO, DE, ant colony). Populations are rebuilt from the storage for each trial.

The trial of rank n (n trials before it, without the baseline) is the next individual of member n modulo the population
size. So no worker waits for a generation, and each uses the results that are known when it starts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import cast

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpotune.search.algorithms.lhs import latin_hypercube
from hpotune.search.base.history import History
from hpotune.search.base.options import int_option
from hpotune.search.base.sampler import CubeSampler, SamplerSetup, SamplingContext, trial_seed
from hpotune.search.base.unit_cube import Cube

MAX_POPULATION = 14
"""Default population of a large budget: 10 + 2 sqrt(d) for d = 4 (SPSO 2007). A larger one gets too few generations
from a hundred trials."""
MAX_REDRAWS = 20
"""Draws of a new individual before it may repeat a known point; in small finite spaces most draws do."""
DESIGNS = 20
"""Latin hypercubes compared for the first generation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Individual:
    """One trial as an individual of the population."""

    rank: int
    point: np.ndarray
    """In the unit cube, shape (d,)."""
    gain: float
    """Larger is better; NaN while the trial runs, minus infinity if it failed or violates a constraint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PopulationHistory(History):
    """The history, and the same trials as individuals in the order of their ranks."""

    individuals: tuple[Individual, ...] = ()
    unassigned: tuple[int, ...] = ()
    """Ranks of running trials that have no point yet: the next pending points are theirs."""

    def with_pending(self, point: np.ndarray) -> PopulationHistory:
        """The history with the first unassigned trial at that point, shape (d,)."""
        rank, *rest = self.unassigned or (-1,)
        new = Individual(rank=rank, point=point, gain=np.nan)
        individuals = tuple(sorted((*self.individuals, new), key=lambda one: one.rank))
        pending = np.vstack([self.pending, point[None]])
        return replace(self, individuals=individuals, unassigned=tuple(rest), pending=pending)

    @property
    def evaluated(self) -> tuple[Individual, ...]:
        """Individuals with a gain."""
        return tuple(one for one in self.individuals if np.isfinite(one.gain))

    @property
    def best(self) -> Individual | None:
        """The evaluated individual with the largest gain, the earliest of equals."""
        return max(self.evaluated, key=lambda one: (one.gain, -one.rank), default=None)

    def previous(self, rank: int, *, size: int) -> list[Individual]:
        """The earlier individuals of the member that the trial of this rank belongs to."""
        return [one for one in self.individuals if one.rank < rank and one.rank % size == rank % size]


class PopulationSampler(CubeSampler):
    """A population of members. A subclass implements the variation: `next_position`."""

    min_population = 2
    """Members that a variation needs."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        self.size = int_option(
            self.setup.options, "population", self.default_population(), low=self.min_population
        )

    def default_population(self) -> int:
        """Members without the option: at least as many as workers, so that each knows its last result."""
        return max(self.min_population, self.setup.workers, min(MAX_POPULATION, self.setup.trials // 5))

    @abstractmethod
    def next_position(
        self, cube: Cube, history: PopulationHistory, context: SamplingContext
    ) -> np.ndarray | None:
        """The next position of a member, shape (d,); it may lie outside the cube. None: too few results."""

    def propose(self, cube: Cube, history: History, context: SamplingContext) -> np.ndarray:
        """A position of the first generation, then a variation; new where MAX_REDRAWS draws find a new one."""
        population = cast(PopulationHistory, history)
        known = {one.point.tobytes() for one in population.individuals}
        for attempt in range(MAX_REDRAWS):
            first = context.rank < self.size and not attempt and not self.setup.salt
            position = (
                self.initial_position(cube, context)
                if first
                else self.next_position(cube, population, context)
            )
            if position is None:
                position = context.rng.random(len(cube))
            point = cube.snap(np.clip(position, 0, 1)[None])[0]
            if point.tobytes() not in known:
                break
        return np.asarray(point)

    def initial_position(self, cube: Cube, context: SamplingContext) -> np.ndarray:
        """The row of a Latin hypercube that belongs to the member. Shape (d,)."""
        kinds = tuple((axis.size, axis.unordered) for axis in cube.axes)
        rows = {}
        for discrete in {axis.size is not None for axis in cube.axes}:
            rows[discrete] = latin_hypercube(
                seed=self.setup.seed, first=self.size, size=self.size, kinds=kinds, designs=DESIGNS,
                shared=discrete,
            )[context.rank]  # fmt: skip
        return np.array([rows[axis.size is not None][i] for i, axis in enumerate(cube.axes)])

    def history_from(
        self, trials: Sequence[FrozenTrial], cube: Cube, direction: StudyDirection, trial: FrozenTrial
    ) -> PopulationHistory:
        """The other trials, as history and as individuals."""
        history = super().history_from(trials, cube, direction, trial)
        gains = dict(zip(history.numbers.tolist(), history.gains.tolist(), strict=True))
        individuals = []
        for rank, other in enumerate(trials):
            if other.number == trial.number or other.state == TrialState.WAITING or not other.params:
                continue
            if cube.contains(other.params):
                gain = np.nan if other.state == TrialState.RUNNING else gains.get(other.number, -np.inf)
                individuals.append(Individual(rank=rank, point=cube.point(other.params), gain=gain))
        space = {axis.name: axis.distribution for axis in cube.axes}
        unassigned = tuple(context.rank for context in self._unassigned_before(trials, trial, space))
        known = {one.name: getattr(history, one.name) for one in fields(History)}
        return PopulationHistory(**known, individuals=tuple(individuals), unassigned=unassigned)

    def member_rng(self, context: SamplingContext) -> np.random.Generator:
        """Random numbers of a member, the same for all its individuals."""
        return np.random.default_rng(trial_seed(self.setup.seed, -1 - context.rank % self.size))


def reflected(point: np.ndarray) -> np.ndarray:
    """A point reflected at the sides of the unit cube until it lies inside. Shapes: (d,) -> (d,)."""
    return np.asarray(1.0 - np.abs(1.0 - np.mod(point, 2.0)))

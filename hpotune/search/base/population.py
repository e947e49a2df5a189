"""What populations share: members, their moves, and a first generation. Rebuilt from the store for every trial.

Trial number n, the baseline not counted, moves member n modulo the population's size: no worker waits for a generation,
each move uses what is known when it is made.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import cast

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpotune.search.algorithms.lhs import latin
from hpotune.search.base.history import History
from hpotune.search.base.options import whole
from hpotune.search.base.sampler import CubeSampler, Setup, Turn, trial_seed
from hpotune.search.base.unit_cube import Cube

MEMBERS = 14
"""Of a large budget: 10 + 2 sqrt(4), the standard PSO of 2007. More of them move too seldom in a hundred trials."""
AGAIN = 20
"""Moves drawn before one may repeat a point that is known: in a space of few points most moves lead to such."""
DESIGNS = 20
"""Designs compared for the first generation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """One trial as a member's position."""

    rank: int
    point: np.ndarray
    gain: float
    """Larger is better; NaN while it runs, minus infinity where it gave no value or breaks a constraint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flight(History):
    """The history as moves, in the order of trials."""

    moves: tuple[Move, ...] = ()
    undrawn: tuple[int, ...] = ()
    """Ranks of trials that run and are not drawn yet: what is believed next belongs to them."""

    def believing(self, point: np.ndarray) -> Flight:
        """The same with the next undrawn trial at that point."""
        rank, *rest = self.undrawn or (-1,)
        moves = tuple(sorted((*self.moves, Move(rank=rank, point=point, gain=np.nan)), key=lambda m: m.rank))
        pending = np.vstack([self.pending, point[None]])
        return replace(self, moves=moves, undrawn=tuple(rest), pending=pending)

    @property
    def told(self) -> tuple[Move, ...]:
        """Moves that gave a value."""
        return tuple(move for move in self.moves if np.isfinite(move.gain))

    @property
    def best(self) -> Move | None:
        """The best of them, the earliest of equals."""
        return max(self.told, key=lambda move: (move.gain, -move.rank), default=None)

    def before(self, rank: int, *, size: int) -> list[Move]:
        """The earlier moves of the member that moves at that rank."""
        return [move for move in self.moves if move.rank < rank and move.rank % size == rank % size]


class PopulationSampler(CubeSampler):
    """Moves a population. A subclass says how: `move`."""

    smallest = 2
    """Members that a move needs."""

    def __init__(self, setup: Setup | None = None) -> None:
        super().__init__(setup)
        self.size = whole(self.setup.options, "population", self.population(), low=self.smallest)

    def population(self) -> int:
        """Members where nobody says how many: at least as many as workers, so that each has its last move told."""
        return max(self.smallest, self.setup.workers, min(MEMBERS, self.setup.trials // 5))

    @abstractmethod
    def move(self, cube: Cube, flight: Flight, turn: Turn) -> np.ndarray | None:
        """The next position, shape (d,); None where too little is known for one. May leave the cube."""

    def place(self, cube: Cube, history: History, turn: Turn) -> np.ndarray:
        """A new point: of the first generation, then a move."""
        flight = cast(Flight, history)
        known = {move.point.tobytes() for move in flight.moves}
        for attempt in range(AGAIN):
            first = turn.rank < self.size and not attempt and not self.setup.salt
            moved = self.begin(cube, turn) if first else self.move(cube, flight, turn)
            point = cube.snap(
                np.clip(moved if moved is not None else turn.rng.random(len(cube)), 0, 1)[None]
            )[0]
            if point.tobytes() not in known:
                break
        return np.asarray(point)

    def begin(self, cube: Cube, turn: Turn) -> np.ndarray:
        """A row of a Latin hypercube."""
        looks = tuple((axis.size, axis.unordered) for axis in cube.axes)
        rows = {}
        for shared in {axis.size is not None for axis in cube.axes}:
            rows[shared] = latin(
                seed=self.setup.seed,
                first=self.size,
                size=self.size,
                looks=looks,
                designs=DESIGNS,
                shared=shared,
            )[turn.rank]
        return np.array([rows[axis.size is not None][i] for i, axis in enumerate(cube.axes)])

    def read(
        self, trials: Sequence[FrozenTrial], cube: Cube, direction: StudyDirection, trial: FrozenTrial
    ) -> Flight:
        """The trials as moves."""
        history = super().read(trials, cube, direction, trial)
        gains = dict(zip(history.numbers.tolist(), history.gains.tolist(), strict=True))
        moves = []
        for rank, other in enumerate(trials):
            if other.number == trial.number or other.state == TrialState.WAITING or not other.params:
                continue
            if cube.holds(other.params):
                gain = np.nan if other.state == TrialState.RUNNING else gains.get(other.number, -np.inf)
                moves.append(Move(rank=rank, point=cube.point(other.params), gain=gain))
        space = {axis.name: axis.distribution for axis in cube.axes}
        undrawn = tuple(turn.rank for turn in self._undrawn_before(trials, trial, space))
        known = {one.name: getattr(history, one.name) for one in fields(History)}
        return Flight(**known, moves=tuple(moves), undrawn=undrawn)

    def member_rng(self, turn: Turn) -> np.random.Generator:
        """Random numbers of a member that all its moves share."""
        return np.random.default_rng(trial_seed(self.setup.seed, -1 - turn.rank % self.size))


def reflected(point: np.ndarray) -> np.ndarray:
    """A point brought back into the cube as by mirrors at its sides."""
    return np.asarray(1.0 - np.abs(1.0 - np.mod(point, 2.0)))

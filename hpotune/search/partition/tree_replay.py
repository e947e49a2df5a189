"""A tree rebuilt from the trials of a study: every ask and tell again, in the order in which they were made.

A trial bears what its ask knew (`Asked`): so the replay tells exactly what was told then, whichever worker does it.
A trial without it (a start, a user's own, another algorithm's) is known by its values alone. Where a trial took other
values than the cell that its ask gave, that cell is asked for again. Bounds of a model are kept with the ask, not
computed again: a replay costs no fit, and another machine's rounding cannot change it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from hpotune.search.base.history import History, history_of
from hpotune.search.base.sampler import CubeSampler, Turn
from hpotune.search.base.unit_cube import Axis, Cube, Params, key
from hpotune.search.partition.cells import Spot
from hpotune.search.partition.tree import Bounds, Test, Tree

ASKED = "hpotune:cell"
"""The system attribute of a trial that holds its `Asked`."""
CLOSE = 1e-9
"""Of points in the unit cube: another machine's logarithm may round the last digit differently."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What one ask knew and gave. Numbers are trials'."""

    number: int
    cell: str | None = None
    """Name of what it gave; None: nothing was left."""
    skipped: int = 0
    """Cells before it that could not be had."""
    blank: Collection[int] = ()
    """Earlier trials that had no point yet."""
    foreseen: Sequence[int] = ()
    """Those of them that ran: their cells were asked for too, before its own."""
    running: Collection[int] = ()
    """Trials with a point whose end was not known."""
    ahead: Collection[int] = ()
    """Later trials that had a point."""
    tests: Sequence[Test] = ()
    """Bounds that were computed."""

    def stored(self) -> dict[str, Any]:
        """As the attribute, what is empty left out."""
        found = {item.name: getattr(self, item.name) for item in fields(self)[2:]}
        return {"cell": self.cell} | {name: value for name, value in found.items() if value}

    @classmethod
    def of(cls, trial: FrozenTrial) -> Asked | None:
        """What a trial bears."""
        found = trial.system_attrs.get(ASKED)
        return None if found is None else cls(number=trial.number, **found)


class Replay:
    """A tree, and the trials that it was told of."""

    def __init__(self, tree: Tree, trials: Sequence[FrozenTrial], history: History) -> None:
        cube = tree.cube
        self.tree = tree
        self.drawn = {t.number: t for t in trials if t.params and cube.holds(t.params)}
        self.ended = {number for number, t in self.drawn.items() if t.state.is_finished()}
        self._gains = dict(zip(history.numbers.tolist(), history.gains.tolist(), strict=True))
        self._names = [axis.name for axis in cube.axes]
        self._seen: set[int] = set()
        self._known: set[int] = set()
        self._reserved: dict[int, Spot] = {}

    def past(self) -> None:
        """Every ask that a drawn trial bears, in their order: later ones had seen more."""
        logs = [found for trial in self.drawn.values() if (found := Asked.of(trial)) is not None]

        def seen(asked: Asked) -> tuple[int, int]:
            points = asked.number - len(asked.blank) + len(asked.ahead)
            return 2 * points - len(asked.running), asked.number

        for asked in sorted(logs, key=seen):
            spot = self.ask(asked, kept={name: (low, high) for name, low, high in asked.tests})
            if spot is not None:
                self._bind(spot, self.drawn[asked.number], asked)

    def ask(self, asked: Asked, kept: Mapping[str, Bounds] | None = None) -> Spot | None:
        """The spot of one trial, knowing what its ask knew."""
        self._tell(asked)
        for number in asked.foreseen:
            if number not in self._reserved and number not in self._seen:
                spot = self.tree.ask(kept)
                if spot is not None:
                    self._reserved[number] = spot
        spot = self._reserved.pop(asked.number, None) or self.tree.ask(kept)
        for _ in range(asked.skipped):
            if spot is not None:
                self.tree.drop(spot)
                spot = self.tree.ask(kept)
        return spot

    def _tell(self, asked: Asked) -> None:
        blank, running, ahead = set(asked.blank), set(asked.running), set(asked.ahead)
        points = {n for n in self.drawn if (n < asked.number and n not in blank) or n in ahead}
        for number in sorted(points - self._seen):
            self._see(number)
        for number in sorted((points & self.ended) - running - self._known):
            self._known.add(number)
            self.tree.know(self._key(number), self._gains.get(number))
        gone = [n for n in self._reserved if n in points or (n in blank and n not in asked.foreseen)]
        for number in sorted(gone):  # it took other values, or died before it had any
            self.tree.release(self._reserved.pop(number))

    def _see(self, number: int) -> None:
        self._seen.add(number)
        self.tree.see(self._key(number), self.tree.cube.point(self.drawn[number].params))

    def _bind(self, spot: Spot, trial: FrozenTrial, asked: Asked) -> None:
        own: Hashable = self._key(trial.number)
        near = np.allclose(self.tree.cube.point(trial.params), spot.point, rtol=0, atol=CLOSE)
        if own != spot.key and near and spot.name == asked.cell:
            self.tree.runs.setdefault(own, self.tree.runs[spot.key])
            own = spot.key
        self._see(trial.number)
        if own != spot.key:
            self.tree.release(spot)

    def _key(self, number: int) -> tuple[Any, ...]:
        return key(self.drawn[number].params, self._names)


class TreeSampler(CubeSampler):
    """Asks a tree. A subclass says which: `tree`."""

    @abstractmethod
    def tree(self, cube: Cube, fits: Callable[[Params], bool]) -> Tree:
        """The search before its first ask."""

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """The next cell's point; what this ask knew is written to the trial."""
        self._one_objective(study)
        if not search_space:
            return {}
        cube = Cube(search_space, self.setup.hints)
        trials = sorted(study.get_trials(deepcopy=False), key=lambda other: other.number)
        others = [other for other in trials if other.number != trial.number]
        replay = Replay(self.tree(cube, self._fits), others, history_of(others, cube, study.direction))
        replay.past()
        asked = self._asked(trials, trial, search_space, replay)
        replay.tree.tests.clear()
        spot = replay.ask(asked)
        given = replace(asked, cell=spot.name if spot else None, tests=replay.tree.tests)
        study._storage.set_trial_system_attr(trial._trial_id, ASKED, given.stored())
        point = spot.point if spot else self._rng(trial.number).random(len(cube))
        return spot.params if spot else cube.params(point)

    def place(self, cube: Cube, history: History, turn: Turn) -> np.ndarray:
        """The next cell where only points and gains are known, not the order in which they came."""
        tree = self.tree(cube, self._fits)
        known = [*zip(history.points, history.gains.tolist(), strict=True)]
        for point, gain in [*known, *((point, None) for point in history.broken)]:
            tree.see(values := tuple(cube.params(point).values()), point)
            tree.know(values, gain)
        for point in history.pending:
            tree.see(tuple(cube.params(point).values()), point)
        spot = tree.ask()
        return spot.point if spot else turn.rng.random(len(cube))

    def _asked(
        self,
        trials: Sequence[FrozenTrial],
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        replay: Replay,
    ) -> Asked:
        """What is known now."""
        foreseen = [turn.number for turn in self._undrawn_before(trials, trial, space)]
        early = [other.number for other in trials if other.number < trial.number]
        return Asked(
            number=trial.number,
            skipped=self.setup.salt,
            blank=[n for n in early if n not in replay.drawn],
            foreseen=foreseen,
            running=sorted(replay.drawn.keys() - replay.ended),
            ahead=[n for n in sorted(replay.drawn) if n > trial.number],
        )

    def _fits(self, params: Params) -> bool:
        """Whether a point keeps the constraints known before, parameters of a single value added."""
        singles = {n: d for n, d in (self.setup.space or {}).items() if d.single() and n not in params}
        only = {n: Axis(name=n, distribution=d).value(0.5) for n, d in singles.items()}
        return self.setup.fits({**only, **params})

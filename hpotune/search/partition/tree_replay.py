"""A partition tree rebuilt from the trials of a study: every ask and result again, in their original order.

Each ask stores with its trial what it knew (`AskRecord`), so that every worker rebuilds the same tree. A trial without
a record (a start point, another algorithm's) contributes its point and its gain alone. Where a trial took other values
than its ask gave, the candidate is given again. Bounds of a model are stored with the ask, not computed again: a replay
fits no model, and the rounding of another machine cannot change it. Only `TreeSampler` writes: the record of its ask.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from hpotune.search.base.history import History, history_of
from hpotune.search.base.sampler import CubeSampler, SamplingContext
from hpotune.search.base.unit_cube import Axis, Cube, Params, params_key
from hpotune.search.partition.cells import Candidate
from hpotune.search.partition.tree import Bounds, CellBounds, PartitionTree

ASK_KEY = "hpotune:cell"
"""System attribute of a trial that holds its `AskRecord`."""
POINT_TOLERANCE = 1e-9
"""Largest difference of equal points in the unit cube: the logarithm of another machine may round differently."""
_STORED_KEYS = {
    "skipped": "skipped",
    "unassigned": "blank",
    "foreseen": "foreseen",
    "running": "running",
    "later": "ahead",
    "computed_bounds": "tests",
}
"""Field of an AskRecord -> its key in the attribute."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskRecord:
    """What one ask knew, and the candidate that it gave. Numbers are trial numbers."""

    number: int
    cell: str | None = None
    """Name of the candidate; None: there was none."""
    skipped: int = 0
    """Candidates before it that were drawn and rejected for this trial."""
    unassigned: Collection[int] = ()
    """Earlier trials that had no point yet."""
    foreseen: Sequence[int] = ()
    """Those of them that were running: their candidates were asked for first."""
    running: Collection[int] = ()
    """Trials with a point and without a result."""
    later: Collection[int] = ()
    """Trials of higher numbers that had a point."""
    computed_bounds: Sequence[CellBounds] = ()
    """Bounds that the model gave in this ask."""

    def as_stored(self) -> dict[str, Any]:
        """The record as the trial attribute holds it; empty fields are left out."""
        found = {key: getattr(self, field) for field, key in _STORED_KEYS.items()}
        return {"cell": self.cell} | {key: value for key, value in found.items() if value}

    @classmethod
    def of(cls, trial: FrozenTrial) -> AskRecord | None:
        """The record of a trial; None where it has none."""
        stored = trial.system_attrs.get(ASK_KEY)
        if stored is None:
            return None
        known = {field: stored[key] for field, key in _STORED_KEYS.items() if key in stored}
        return cls(number=trial.number, cell=stored["cell"], **known)


class TreeReplay:
    """A tree, and how much of a study's trials it knows."""

    def __init__(self, tree: PartitionTree, trials: Sequence[FrozenTrial], history: History) -> None:
        cube = tree.cube
        self.tree = tree
        self.with_point = {t.number: t for t in trials if t.params and cube.contains(t.params)}
        self.finished = {number for number, t in self.with_point.items() if t.state.is_finished()}
        self._gains = dict(zip(history.numbers.tolist(), history.gains.tolist(), strict=True))
        self._names = [axis.name for axis in cube.axes]
        self._added: set[int] = set()
        self._recorded: set[int] = set()
        self._foreseen: dict[int, Candidate] = {}
        """Candidates that were asked for on behalf of running trials without a point."""

    def replay_asks(self) -> None:
        """Repeat every recorded ask in its original order: an ask that knew more points and results is later."""
        records = [
            record for trial in self.with_point.values() if (record := AskRecord.of(trial)) is not None
        ]

        def knowledge(record: AskRecord) -> tuple[int, int]:
            points = record.number - len(record.unassigned) + len(record.later)
            return 2 * points - len(record.running), record.number  # points + results, then the number

        for record in sorted(records, key=knowledge):
            stored_bounds = {name: (low, high) for name, low, high in record.computed_bounds}
            candidate = self.ask(record, stored_bounds)
            if candidate is not None:
                self._attach(candidate, self.with_point[record.number], record)

    def ask(self, record: AskRecord, stored_bounds: Mapping[str, Bounds] | None = None) -> Candidate | None:
        """The candidate of one trial, given what its ask knew; None: there is none."""
        self._update(record)
        for number in record.foreseen:
            if number not in self._foreseen and number not in self._added:
                candidate = self.tree.ask(stored_bounds)
                if candidate is not None:
                    self._foreseen[number] = candidate
        candidate = self._foreseen.pop(record.number, None) or self.tree.ask(stored_bounds)
        for _ in range(record.skipped):
            if candidate is not None:
                self.tree.discard(candidate)
                candidate = self.tree.ask(stored_bounds)
        return candidate

    def _update(self, record: AskRecord) -> None:
        """Pass the points and results to the tree that the ask knew and the tree does not know yet."""
        unassigned, running, later = set(record.unassigned), set(record.running), set(record.later)
        points = {n for n in self.with_point if (n < record.number and n not in unassigned) or n in later}
        for number in sorted(points - self._added):
            self._add(number)
        for number in sorted((points & self.finished) - running - self._recorded):
            self._recorded.add(number)
            self.tree.record_gain(self._key(number), self._gains.get(number))
        # a foreseen trial took other values, or failed before it had a point: its candidate is free again
        free = [n for n in self._foreseen if n in points or (n in unassigned and n not in record.foreseen)]
        for number in sorted(free):
            self.tree.release(self._foreseen.pop(number))

    def _add(self, number: int) -> None:
        self._added.add(number)
        self.tree.add_trial(self._key(number), self.tree.cube.point(self.with_point[number].params))

    def _attach(self, candidate: Candidate, trial: FrozenTrial, record: AskRecord) -> None:
        """Add the trial of an ask; where it took another point than the candidate, release the candidate."""
        own: Hashable = self._key(trial.number)
        point = self.tree.cube.point(trial.params)
        near = np.allclose(point, candidate.point, rtol=0, atol=POINT_TOLERANCE)
        if own != candidate.key and near and candidate.name == record.cell:
            self.tree.evaluations.setdefault(own, self.tree.evaluations[candidate.key])
            own = candidate.key
        self._add(trial.number)
        if own != candidate.key:
            self.tree.release(candidate)

    def _key(self, number: int) -> tuple[Any, ...]:
        return params_key(self.with_point[number].params, self._names)


class TreeSampler(CubeSampler):
    """A sampler that asks a partition tree. A subclass makes the tree: `tree`."""

    @abstractmethod
    def tree(self, cube: Cube, is_feasible: Callable[[Params], bool]) -> PartitionTree:
        """The tree before its first ask."""

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """The point of the next candidate. Writes the record of the ask to a system attribute of the trial."""
        self._check_single_objective(study)
        if not search_space:
            return {}
        cube = Cube(search_space, self.setup.hints)
        trials = sorted(study.get_trials(deepcopy=False), key=lambda other: other.number)
        others = [other for other in trials if other.number != trial.number]
        tree = self.tree(cube, self._is_feasible)
        replay = TreeReplay(tree, others, history_of(others, cube, study.direction))
        replay.replay_asks()
        record = self._record(trials, trial, search_space, replay)
        tree.computed_bounds.clear()
        candidate = replay.ask(record)
        record = replace(
            record, cell=candidate.name if candidate else None, computed_bounds=tree.computed_bounds
        )
        study._storage.set_trial_system_attr(trial._trial_id, ASK_KEY, record.as_stored())
        if candidate is None:
            return cube.params(self._rng(trial.number).random(len(cube)))
        return candidate.params

    def propose(self, cube: Cube, history: History, context: SamplingContext) -> np.ndarray:
        """The next candidate's point where only points and gains are known, and no asks. Shape (d,)."""
        tree = self.tree(cube, self._is_feasible)
        finished = [*zip(history.points, history.gains.tolist(), strict=True)]
        for point, gain in [*finished, *((point, None) for point in history.failed)]:
            tree.add_trial(values := tuple(cube.params(point).values()), point)
            tree.record_gain(values, gain)
        for point in history.pending:
            tree.add_trial(tuple(cube.params(point).values()), point)
        candidate = tree.ask()
        return candidate.point if candidate else context.rng.random(len(cube))

    def _record(
        self,
        trials: Sequence[FrozenTrial],
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        replay: TreeReplay,
    ) -> AskRecord:
        """What the ask of this trial knows."""
        earlier = [other.number for other in trials if other.number < trial.number]
        return AskRecord(
            number=trial.number,
            skipped=self.setup.salt,
            unassigned=[n for n in earlier if n not in replay.with_point],
            foreseen=[context.number for context in self._unassigned_before(trials, trial, space)],
            running=sorted(replay.with_point.keys() - replay.finished),
            later=[n for n in sorted(replay.with_point) if n > trial.number],
        )

    def _is_feasible(self, params: Params) -> bool:
        """Whether a point is feasible, completed with the parameters that have a single value."""
        singles = {n: d for n, d in (self.setup.space or {}).items() if d.single() and n not in params}
        only = {n: Axis(name=n, distribution=d).value(0.5) for n, d in singles.items()}
        return self.setup.is_feasible({**only, **params})

"""Base class of the partition-based searches: a search that gives candidates and records their gains.

No study, no Optuna. The state of a search is a pure function of the ordered calls of `ask`, `add_trial` and
`record_gain`; tree_replay.py rebuilds it from the trials of a study. Candidates with equal values share one
`Evaluation`: no point is evaluated twice, and a cell that keeps the point of its parent has the parent's value.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from hpotune.search.base.unit_cube import Cube, Params
from hpotune.search.partition.cells import Candidate

MAX_LOOKUPS = 1_000
"""Candidates that one ask rejects before it gives up; then any new point is better than a longer search."""

Bounds = tuple[float, float]
"""Lower and upper bound of a gain."""
CellBounds = tuple[str, float, float]
"""A candidate's name and the bounds that a model gave it; stored with the ask, so that a replay fits no model."""


@dataclass(slots=True, eq=False)
class Evaluation:
    """What is known about one point, whichever candidates have it."""

    point: np.ndarray
    """In the unit cube, shape (d,)."""
    gains: list[float] = field(default_factory=list)
    """Of its finished trials; larger is better."""
    failed: bool = False
    """Whether a trial ended without a gain, or the point is infeasible."""
    trials: int = 0
    """Trials that have the point, running ones too."""

    @property
    def known(self) -> bool:
        """Whether a result is there."""
        return self.failed or bool(self.gains)


class PartitionTree(ABC):
    """A search that gives candidates one at a time; gains may come in any order, later, or never.

    A subclass implements `_candidates`, a generator that runs until it needs the next evaluation.
    """

    def __init__(self, cube: Cube, *, is_feasible: Callable[[Params], bool] = lambda params: True) -> None:
        self.cube, self.is_feasible = cube, is_feasible
        self.evaluations: dict[Hashable, Evaluation] = {}
        """By the values of the point (`Candidate.key`)."""
        self.computed_bounds: list[CellBounds] = []
        """Bounds that a model gave since the caller last cleared the list."""
        self.worst = 0.0
        """The smallest gain so far; 0 before the first."""
        self.best = -math.inf
        """The largest gain so far."""
        self._stored_bounds: Mapping[str, Bounds] | None = None
        self._released: list[Candidate] = []
        self._lookups = 0
        self._stream = self._candidates()

    @abstractmethod
    def _candidates(self) -> Iterator[Candidate | None]:
        """Candidates to evaluate, each decided by what is known when it is asked for; None: too many rejected."""

    def ask(self, stored_bounds: Mapping[str, Bounds] | None = None) -> Candidate | None:
        """The next candidate to evaluate; None: none was found, take any point.

        `stored_bounds`: bounds of an ask that is repeated, by the candidate's name; no model is asked then.
        """
        self._stored_bounds, self._lookups = stored_bounds, 0
        while self._released:
            candidate = self._released.pop(0)
            evaluation = self.evaluations[candidate.key]
            if not evaluation.trials and not evaluation.known:
                return candidate
        return next(self._stream, None)

    def tell(self, candidate: Candidate, gain: float | None) -> None:
        """Record a finished trial of a candidate; None: it has no gain."""
        self.add_trial(candidate.key, candidate.point)
        self.record_gain(candidate.key, gain)

    def add_trial(self, key: Hashable, point: np.ndarray) -> None:
        """Record that a trial has this point, whoever asked for it."""
        self.evaluations.setdefault(key, Evaluation(point)).trials += 1

    def record_gain(self, key: Hashable, gain: float | None) -> None:
        """Record the result of a trial that was added; None: it has no gain."""
        evaluation = self.evaluations[key]
        if gain is None:
            evaluation.failed = True
            return
        first = math.isinf(self.best)
        self.worst, self.best = gain if first else min(self.worst, gain), max(self.best, gain)
        evaluation.gains.append(gain)

    def release(self, candidate: Candidate) -> None:
        """Record that no trial evaluates a candidate that was asked for; the next ask gives it again."""
        self._released.append(candidate)

    def discard(self, candidate: Candidate) -> None:
        """Record that a candidate cannot be evaluated; it counts as failed."""
        self.evaluations[candidate.key].failed = True

    def gain(self, candidate: Candidate) -> float | None:
        """The mean gain of a candidate's trials; the worst gain so far where they failed; None: no result yet."""
        evaluation = self.evaluations.get(candidate.key)
        if evaluation is None or not evaluation.known:
            return None
        return sum(evaluation.gains) / len(evaluation.gains) if evaluation.gains else self.worst

    def has_own_gain(self, candidate: Candidate) -> bool:
        """Whether a trial of the candidate has a gain."""
        evaluation = self.evaluations.get(candidate.key)
        return evaluation is not None and bool(evaluation.gains)

    def _evaluate(self, candidate: Candidate) -> Iterator[Candidate | None]:
        """The candidate, if it must be evaluated; nothing if its point has a trial already or is infeasible."""
        if candidate.key in self.evaluations:
            yield from self._count_lookup()
            return
        self.evaluations[candidate.key] = Evaluation(candidate.point)
        if self.is_feasible(candidate.params):
            yield candidate
        else:
            self.discard(candidate)
            yield from self._count_lookup()

    def _count_lookup(self) -> Iterator[None]:
        """None, once an ask has rejected MAX_LOOKUPS candidates."""
        self._lookups += 1
        if self._lookups >= MAX_LOOKUPS:
            self._lookups = 0
            yield None

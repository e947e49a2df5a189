"""What our own samplers share: the cube, the history, the trials that were taken but not drawn yet.

A sampler of ours is a pure function of the store, the seed and the trial's number: any worker continues any study.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpotune.search.base.history import History, history_of
from hpotune.search.base.unit_cube import Axis, Cube, Hint, Params


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What an algorithm is made from. Everything has a default, so that it also serves a plain Optuna study."""

    seed: int = 0
    number: int = 0
    """Of the trial that will be drawn."""
    salt: int = 0
    """Counts the attempts at drawing it: another salt, other random numbers."""
    space: Mapping[str, BaseDistribution] | None = None
    """Parameters that every trial has; None: those that all finished trials of the study have in common."""
    hints: Mapping[str, Hint] = field(default_factory=dict)
    trials: int = 50
    """The budget, without the baseline."""
    workers: int = 1
    """Trials at a time."""
    starts: Sequence[Params] = ()
    """Points that the first trials take whatever the algorithm says."""
    fits: Callable[[Params], bool] = lambda params: True
    """Whether a point keeps the constraints that are known before it runs."""
    options: Mapping[str, Any] = field(default_factory=dict)
    conditional: bool = False
    """Whether some parameters are there only where a condition holds."""
    objectives: int = 1

    @property
    def trial_seed(self) -> int:
        """A 32-bit seed for this trial, unrelated to its neighbours' (streams of adjacent seeds are not)."""
        return trial_seed(self.seed, self.number, salt=self.salt)


def trial_seed(seed: int, number: int, *, salt: int = 0) -> int:
    """A 32-bit seed of a trial's own."""
    text = f"{seed}:{number}:{salt}" if salt else f"{seed}:{number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One trial's place in the search."""

    number: int
    rank: int
    """How many trials were made before it, the baseline not counted."""
    rng: np.random.Generator


class CubeSampler(BaseSampler):
    """Places trials in the unit cube, one by one. A subclass says where: `place`."""

    several = False
    """Whether it takes more than one objective."""

    def __init__(self, setup: Setup | None = None) -> None:
        self.setup = setup or Setup()

    @abstractmethod
    def place(self, cube: Cube, history: History, turn: Turn) -> np.ndarray:
        """The point of one trial. Shape (d,)."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that every trial has."""
        self._one_objective(study)
        if self.setup.space is not None:
            return {name: d for name, d in self.setup.space.items() if not d.single()}
        found = IntersectionSearchSpace().calculate(study)
        return {name: distribution for name, distribution in found.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """The trial's point, those of trials that were taken before it and are not drawn yet foreseen."""
        self._one_objective(study)
        if not search_space:
            return {}
        cube = Cube(search_space, self.setup.hints)
        trials = sorted(study.get_trials(deepcopy=False), key=lambda other: other.number)
        direction = study.directions[0] if self.several else study.direction
        history = self.read(trials, cube, direction, trial)
        for turn in self._undrawn_before(trials, trial, search_space):
            history = history.believing(self.place(cube, history, turn))
        mine = Turn(number=trial.number, rank=_rank(trials, trial), rng=self._rng(trial.number))
        return cube.params(self.place(cube, history, mine))

    def read(
        self, trials: Sequence[FrozenTrial], cube: Cube, direction: StudyDirection, trial: FrozenTrial
    ) -> History:
        """What the other trials tell."""
        return history_of([other for other in trials if other.number != trial.number], cube, direction)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401
        """A random value, for parameters that not every trial has."""
        self._one_objective(study)
        stream = int.from_bytes(hashlib.sha256(param_name.encode()).digest()[:4], "big")
        rng = np.random.default_rng([self.setup.seed, trial.number, self.setup.salt, stream])
        hint = self.setup.hints.get(param_name, Hint())
        return Axis(name=param_name, distribution=param_distribution, hint=hint).value(float(rng.random()))

    def _undrawn_before(
        self, trials: Sequence[FrozenTrial], trial: FrozenTrial, space: Mapping[str, BaseDistribution]
    ) -> list[Turn]:
        """The turns of trials that run already but are not drawn yet: of workers that ask at once, each looks ahead."""
        blind = [
            other
            for other in trials
            if other.state == TrialState.RUNNING
            and other.number < trial.number
            and not space.keys() <= other.params.keys()
        ]
        turns = [
            Turn(number=other.number, rank=_rank(trials, other), rng=self._rng(other.number))
            for other in blind
        ]
        return [turn for turn in turns if turn.rank >= len(self.setup.starts)]

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng(trial_seed(self.setup.seed, number, salt=self.setup.salt))

    def _one_objective(self, study: Study) -> None:
        if len(study.directions) > 1 and not self.several:
            raise ValueError(
                f"{type(self).__name__} takes one objective, this study has {len(study.directions)}"
            )


def _rank(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    return sum(other.number < trial.number for other in trials)

"""The base class of hpotune's own samplers: it reads the history, and a subclass proposes a point of the unit cube.

A sampler is a pure function of the storage, the seed and the trial number: any worker continues any study.
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
from hpotune.search.base.storage_view import FIRST_KNOWN
from hpotune.search.base.unit_cube import Axis, Cube, Hint, Params


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerSetup:
    """What a sampler is made from. Every field has a default, so that samplers also work in a plain Optuna study."""

    seed: int = 0
    number: int = 0
    """Number of the trial that gets a point."""
    salt: int = 0
    """How often its point was drawn before; each value gives other random numbers."""
    space: Mapping[str, BaseDistribution] | None = None
    """Parameters that every trial has; None: those that all finished trials of the study have in common."""
    hints: Mapping[str, Hint] = field(default_factory=dict)
    """Further facts about parameters, by name."""
    trials: int = 50
    """The budget, without the baseline."""
    workers: int = 1
    """Trials that run at the same time."""
    start_points: Sequence[Params] = ()
    """Points of the first trials, which no sampler chooses."""
    is_feasible: Callable[[Params], bool] = lambda params: True
    """Whether a point satisfies the constraints that can be computed before it runs."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """`search.options` of the study file."""
    conditional: bool = False
    """Whether some parameters exist only under a condition."""
    objectives: int = 1

    @property
    def trial_seed(self) -> int:
        """A 32-bit seed of this trial and salt."""
        return trial_seed(self.seed, self.number, salt=self.salt)


def trial_seed(seed: int, number: int, *, salt: int = 0) -> int:
    """A 32-bit seed of a trial, by hashing: the random streams of adjacent seeds are not independent."""
    text = f"{seed}:{number}:{salt}" if salt else f"{seed}:{number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingContext:
    """The trial that a point is proposed for."""

    number: int
    rank: int
    """How many trials were created before it, without the baseline; known results of other studies count too."""
    rng: np.random.Generator
    """Random numbers of this trial alone."""


class CubeSampler(BaseSampler):
    """An Optuna sampler that proposes points of the unit cube. A subclass implements `propose`."""

    multi_objective = False
    """Whether it accepts more than one objective."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        self.setup = setup or SamplerSetup()

    @abstractmethod
    def propose(self, cube: Cube, history: History, context: SamplingContext) -> np.ndarray:
        """The point of one trial in the unit cube. Shape (d,)."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that every trial has and that have more than one value."""
        self._check_single_objective(study)
        if self.setup.space is not None:
            return {name: d for name, d in self.setup.space.items() if not d.single()}
        found = IntersectionSearchSpace().calculate(study)
        return {name: distribution for name, distribution in found.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """The proposed point of the trial.

        Trials of other workers may run already and have no point yet. Their proposals depend on the storage alone, so
        those of lower numbers are computed here first and counted as pending: the two workers do not choose the same.
        """
        self._check_single_objective(study)
        if not search_space:
            return {}
        cube = Cube(search_space, self.setup.hints)
        trials = sorted(study.get_trials(deepcopy=False), key=lambda other: other.number)
        direction = study.directions[0] if self.multi_objective else study.direction
        history = self.history_from(trials, cube, direction, trial)
        for context in self._unassigned_before(trials, trial, search_space):
            history = history.with_pending(self.propose(cube, history, context))
        known = sum(other.number >= FIRST_KNOWN for other in trials)
        own = SamplingContext(
            number=trial.number, rank=_rank(trials, trial) + known, rng=self._rng(trial.number)
        )
        return cube.params(self.propose(cube, history, own))

    def history_from(
        self, trials: Sequence[FrozenTrial], cube: Cube, direction: StudyDirection, trial: FrozenTrial
    ) -> History:
        """The history that `propose` gets: the other trials, in the order of their numbers."""
        return history_of([other for other in trials if other.number != trial.number], cube, direction)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401
        """A random value, for parameters that not every trial has."""
        self._check_single_objective(study)
        stream = int.from_bytes(hashlib.sha256(param_name.encode()).digest()[:4], "big")
        rng = np.random.default_rng([self.setup.seed, trial.number, self.setup.salt, stream])
        hint = self.setup.hints.get(param_name, Hint())
        return Axis(name=param_name, distribution=param_distribution, hint=hint).value(float(rng.random()))

    def _unassigned_before(
        self, trials: Sequence[FrozenTrial], trial: FrozenTrial, space: Mapping[str, BaseDistribution]
    ) -> list[SamplingContext]:
        """Running trials of lower numbers that have no point yet, and that take no start point."""
        unassigned = [
            other
            for other in trials
            if other.state == TrialState.RUNNING
            and other.number < trial.number
            and not space.keys() <= other.params.keys()
        ]
        known = sum(other.number >= FIRST_KNOWN for other in trials)
        contexts = [
            SamplingContext(
                number=other.number, rank=_rank(trials, other) + known, rng=self._rng(other.number)
            )
            for other in unassigned
        ]
        return [context for context in contexts if context.rank >= len(self.setup.start_points) + known]

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng(trial_seed(self.setup.seed, number, salt=self.setup.salt))

    def _check_single_objective(self, study: Study) -> None:
        if len(study.directions) > 1 and not self.multi_objective:
            raise ValueError(
                f"{type(self).__name__} supports one objective, this study has {len(study.directions)}"
            )


def _rank(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    return sum(other.number < trial.number for other in trials)

"""Random search: independent uniform points, the baseline of every other algorithm (Bergstra and Bengio 2012)."""

from __future__ import annotations

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.history import History
from hpotune.search.base.sampler import CubeSampler, SamplingContext
from hpotune.search.base.unit_cube import Cube, Params


class RandomSampler(CubeSampler):
    """Independent uniform points of the cube."""

    multi_objective = True

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        """The trial's point; other trials are not read."""
        cube = Cube(search_space, self.setup.hints)
        return cube.params(self._rng(trial.number).random(len(cube))) if search_space else {}

    def propose(self, cube: Cube, history: History, context: SamplingContext) -> np.ndarray:
        """A uniform point. Shape (d,)."""
        return context.rng.random(len(cube))


ALGORITHM = Algorithm(
    make=RandomSampler,
    when="to compare with, or to explore an unknown space",
    cost="nothing",
    parallel="any number of workers",
    source="Bergstra and Bengio 2012, JMLR 13",
    conditions=True,
    objectives=True,
)

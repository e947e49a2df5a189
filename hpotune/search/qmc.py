"""Sobol points by trial number: no state in the store, so parallel workers never draw the same one.

Optuna's QMCSampler counts its points in a study attribute, read and then written: two workers can take the same number.
Here trial n takes point n of one scrambled sequence. Conditions and categories take their own dimension of it.
Source: Sobol 1967; scrambling by Owen 1998, as in scipy.stats.qmc.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from hpotune.search.algorithm import Algorithm
from hpotune.search.cube import Axis, Hint
from hpotune.search.sampler import Setup


class SobolSampler(BaseSampler):
    """Point `trial.number` of the scrambled Sobol sequence over `names`."""

    def __init__(self, setup: Setup | None = None) -> None:
        self._setup = setup or Setup()
        self._column = {name: index for index, name in enumerate(self._setup.hints)}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: each name has a dimension of its own."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing, as above."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401
        """The value at the parameter's coordinate of this trial's point."""
        column = self._column.setdefault(param_name, len(self._column))
        hint = self._setup.hints.get(param_name, Hint())
        axis = Axis(name=param_name, distribution=param_distribution, hint=hint)
        return axis.value(float(self._point(trial.number + self._setup.salt * self._setup.trials)[column]))

    def _point(self, number: int) -> np.ndarray:
        from scipy.stats.qmc import Sobol  # type: ignore[import-untyped]  # 0.3 s to import; only drawing needs it

        engine = Sobol(d=max(1, len(self._column)), scramble=True, rng=self._setup.seed)
        if number:  # scipy cannot skip zero points of a scrambled sequence
            engine.fast_forward(number)
        point: np.ndarray = engine.random(1)[0]
        return point


ALGORITHM = Algorithm(
    make=SobolSampler,
    when="an even first look at a space; at low budgets better than random",
    cost="nothing",
    parallel="any number of workers",
    source="Sobol 1967; Owen 1998; scipy.stats.qmc",
    conditions=True,
    objectives=True,
)

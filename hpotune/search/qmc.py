"""Sobol points by trial number: no state in the store, so parallel workers never draw the same one.

Optuna's QMCSampler counts its points in a study attribute, read and then written: two workers can take the same number.
Here trial n takes point n of one scrambled sequence. Conditions and categories take their own dimension of it.
Source: Sobol 1967; scrambling by Owen 1998, as in scipy.stats.qmc.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class SobolSampler(BaseSampler):
    """Point `trial.number` of the scrambled Sobol sequence over `names`."""

    def __init__(self, *, names: Sequence[str], seed: int) -> None:
        self._column = {name: index for index, name in enumerate(names)}
        self._seed = seed

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
        return from_unit(float(self._point(trial.number)[column]), param_distribution)

    def _point(self, number: int) -> np.ndarray:
        from scipy.stats.qmc import Sobol  # type: ignore[import-untyped]  # 0.3 s to import; only drawing needs it

        engine = Sobol(d=max(1, len(self._column)), scramble=True, rng=self._seed)
        if number:  # scipy cannot skip zero points of a scrambled sequence
            engine.fast_forward(number)
        point: np.ndarray = engine.random(1)[0]
        return point


def from_unit(unit: float, distribution: BaseDistribution) -> Any:  # noqa: ANN401 - whatever the distribution holds
    """The value at a share `unit` in [0, 1) of a distribution, every whole number or category with an equal share."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(unit * len(distribution.choices))]
    low, high, step = distribution.low, distribution.high, distribution.step  # type: ignore[attr-defined]
    if distribution.log:  # type: ignore[attr-defined]
        whole = isinstance(low, int)
        edges = np.log([low - 0.5, high + 0.5]) if whole else np.log([low, high])
        value = float(np.exp(edges[0] + unit * (edges[1] - edges[0])))
        return min(max(round(value), low), high) if whole else min(max(value, low), high)
    if step is None:
        return low + unit * (high - low)
    return min(low + step * int(unit * (round((high - low) / step) + 1)), high)  # 3 * 0.1 is more than 0.3

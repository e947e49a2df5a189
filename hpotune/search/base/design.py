"""The base class of designs: points laid out beforehand, a row per trial and a column per name, conditional ones too.

The row of a trial is its rank among the trials that use the design: start points and retried points use none. No state
is kept between trials, so parallel workers never use the same row.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from hpotune.search.base.sampler import SamplerSetup, trial_seed
from hpotune.search.base.unit_cube import Axis, Hint


class DesignSampler(BaseSampler):
    """Samples each parameter by the row of the trial and the column of its name. A subclass implements `unit`."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        self.setup = setup or SamplerSetup()
        self.columns = {name: index for index, name in enumerate(self.setup.hints)}
        """By name. In a plain Optuna study, whose names are not known before, columns are added when names appear."""
        self._rows: dict[int, int] = {}

    @abstractmethod
    def unit(self, row: int, column: int, axis: Axis) -> float:
        """The coordinate of a row and column, in [0, 1]."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Empty: each parameter is sampled independently, from its own column."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Empty, as above."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401
        """The value at the trial's row and the parameter's column; random where a start point does not give it."""
        column = self.columns.setdefault(param_name, len(self.columns))
        hint = self.setup.hints.get(param_name, Hint())
        axis = Axis(name=param_name, distribution=param_distribution, hint=hint)
        row = self._row(study, trial)
        return axis.value(
            self.unit(row, column, axis) if row >= 0 else self.random_coordinate(trial.number, column)
        )

    def random_coordinate(self, row: int, column: int) -> float:
        """A uniform random number of a row and column; another salt gives another number."""
        return float(
            np.random.default_rng([trial_seed(self.setup.seed, row, salt=self.setup.salt), column]).random()
        )

    def _row(self, study: Study, trial: FrozenTrial) -> int:
        """The row of a trial in the design; -1 for a start point."""
        if trial.number not in self._rows:
            trials = study.get_trials(deepcopy=False)
            before = sorted((t for t in trials if t.number < trial.number), key=lambda other: other.number)
            starts = len(self.setup.start_points)
            rows_before = sum("fixed_params" not in other.system_attrs for other in before[starts:])
            self._rows[trial.number] = rows_before if len(before) >= starts else -1
        return self._rows[trial.number]

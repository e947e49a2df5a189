"""Designs: points laid out beforehand, a row for each trial and a column for each name, conditional ones too.

A trial takes the row of its place among those that the design is asked for: starts and points that are tried again take
none. Nothing is kept between trials, so that parallel workers never draw the same row.
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
    """The row of a trial, a name's coordinate by its column. A subclass says which: `unit`."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        self.setup = setup or SamplerSetup()
        self.columns = {name: index for index, name in enumerate(self.setup.hints)}
        """By name. In a plain Optuna study, which tells no names beforehand, they grow as names are met."""
        self._rows: dict[int, int] = {}

    @abstractmethod
    def unit(self, row: int, column: int, axis: Axis) -> float:
        """The coordinate in [0, 1]."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: each name has a column of its own."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing, as above."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401
        """The value at the parameter's coordinate of this trial's row; a random one where a start leaves it open."""
        column = self.columns.setdefault(param_name, len(self.columns))
        hint = self.setup.hints.get(param_name, Hint())
        axis = Axis(name=param_name, distribution=param_distribution, hint=hint)
        row = self._row(study, trial)
        return axis.value(
            self.unit(row, column, axis) if row >= 0 else self.random_coordinate(trial.number, column)
        )

    def random_coordinate(self, row: int, column: int) -> float:
        """A uniform number of a row and column, another for another salt."""
        return float(
            np.random.default_rng([trial_seed(self.setup.seed, row, salt=self.setup.salt), column]).random()
        )

    def _row(self, study: Study, trial: FrozenTrial) -> int:
        """Of the design; negative for a start."""
        if trial.number not in self._rows:
            trials = study.get_trials(deepcopy=False)
            before = sorted((t for t in trials if t.number < trial.number), key=lambda other: other.number)
            starts = len(self.setup.start_points)
            placed = sum("fixed_params" not in other.system_attrs for other in before[starts:])
            self._rows[trial.number] = placed if len(before) >= starts else -1
        return self._rows[trial.number]

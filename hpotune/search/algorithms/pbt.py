"""PBT, population based training: trials continue from each other's checkpoints, bad ones are replaced by good ones.

A trial trains one generation of a run. It keeps the values of its predecessor, or copies the checkpoint of a better
trial (exploit: base/lineages.py) and perturbs its values (explore: here). No trial waits for its whole generation.
Source: Jaderberg et al. 2017, arXiv 1711.09846, section 4.1.1 (perturb and resample).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from hpotune.records.lineage import Lineage
from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.algorithms.lhs import latin_hypercube
from hpotune.search.base.history import History
from hpotune.search.base.lineages import (
    LINEAGE_KEY,
    POPULATION,
    QUANTILE,
    assign_lineage,
    extended_setup,
    generation_plan,
    load_or_save_plan,
    next_lineage,
    study_errors,
)
from hpotune.search.base.options import float_option
from hpotune.search.base.sampler import CubeSampler, SamplerSetup, SamplingContext
from hpotune.search.base.unit_cube import Axis, Cube

RESAMPLE, FACTORS = 0.25, (0.8, 1.25)
"""After a copy: the probability that a value is resampled, and the factors for the others, equally probable."""
DESIGNS = 20
"""Latin hypercubes compared for the first generation."""


def perturbed_value(
    axis: Axis,
    value: Any,  # noqa: ANN401 - whatever the distribution holds
    rng: np.random.Generator,
    *,
    resample: float,
    factors: Sequence[float],
) -> Any:  # noqa: ANN401 - whatever the distribution holds
    """A perturbed value: resampled with probability `resample`, else multiplied by one of `factors`, within its range.

    In a range that reaches 0 or below, the distance from its lower bound is multiplied. Ordered categories move to a
    neighbour, unordered ones do not change.
    """
    d, factor = axis.distribution, factors[int(rng.integers(len(factors)))]
    if rng.random() < resample:
        return axis.value(float(rng.random()))
    up = 1 if factor > 1 else -1
    if isinstance(d, CategoricalDistribution):
        index = int(d.to_internal_repr(value))
        return d.choices[min(max(index + up, 0), len(d.choices) - 1)] if axis.hint.ordered else value
    low, high, step = d.low, d.high, d.step  # type: ignore[attr-defined]
    base = 0 if low > 0 else low
    new = base + (value - base) * factor
    if step:
        before, last = round((value - low) / step), round((high - low) / step)
        index = round((new - low) / step)
        index = index if index != before else before + up  # a small number times 1.25 is itself again
        found = low + step * min(max(index, 0), last)
        return int(found) if isinstance(low, int) else min(found, high)
    return min(max(new, low), high)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParentHistory(History):
    """The history, and the values of the trial's parent."""

    parent: Mapping[str, Any] | None
    """By name; None: the trial has no parent."""


class PopulationBasedSampler(CubeSampler):
    """Points of the first generation, and perturbed ones. Values that are kept are not sampled (search/assign.py)."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        options = self.setup.options
        self.plan = generation_plan(self.setup)
        float_option(options, "quantile", QUANTILE, low=0.0, high=0.5)
        self.resample = float_option(options, "resample", RESAMPLE, low=0.0, high=1.0)
        self.factors = _factors(options.get("factors", FACTORS))

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Read the generation plan of the study; written to it where it has none."""
        self.plan = load_or_save_plan(study, self.setup)

    def history_from(
        self, trials: Sequence[FrozenTrial], cube: Cube, direction: StudyDirection, trial: FrozenTrial
    ) -> ParentHistory:
        """The other trials, and the parent's values."""
        history = super().history_from(trials, cube, direction, trial)
        written = trial.user_attrs.get(LINEAGE_KEY)
        line = (
            Lineage.from_stored(written)
            if written
            else next_lineage(trials, direction, trial, self.setup, plan=self.plan)
        )
        parent = next((other.params for other in trials if other.number == line.parent), None)
        if parent is not None and not cube.contains(parent):
            parent = None
        return ParentHistory(
            **{one.name: getattr(history, one.name) for one in fields(History)}, parent=parent
        )

    def propose(self, cube: Cube, history: History, context: SamplingContext) -> np.ndarray:
        """A row of a Latin hypercube, or the parent's point perturbed. Shape (d,)."""
        parent = cast(ParentHistory, history).parent
        if parent is not None:
            values = {
                axis.name: perturbed_value(
                    axis, parent[axis.name], context.rng, resample=self.resample, factors=self.factors
                )
                for axis in cube.axes
            }
            return cube.point(values)
        if context.rank >= self.plan.population or self.setup.salt:
            return context.rng.random(len(cube))
        kinds, size = tuple((axis.size, axis.unordered) for axis in cube.axes), self.plan.population
        rows = {
            shared: latin_hypercube(
                seed=self.setup.seed, first=size, size=size, kinds=kinds, designs=DESIGNS, shared=shared
            )[context.rank]
            for shared in (True, False)
        }
        return np.array([rows[axis.size is not None][i] for i, axis in enumerate(cube.axes)])


def _factors(given: Any) -> tuple[float, ...]:  # noqa: ANN401 - checked here
    """Raises: ValueError."""
    right = isinstance(given, (list, tuple)) and len(given) > 0
    if not right or any(isinstance(x, bool) or not isinstance(x, (int, float)) or x <= 0 for x in given):
        raise ValueError(f"factors={given!r} must be a list of numbers above 0, such as [0.8, 1.25]")
    return tuple(float(x) for x in given)


ALGORITHM = Algorithm(
    make=PopulationBasedSampler,
    when="values that should change during training, such as the learning rate; many generations",
    cost="nothing",
    parallel="half as many workers as the population; no trial waits for its generation",
    source="Jaderberg et al. 2017, arXiv 1711.09846",
    options={
        "population": f"runs that are trained at the same time (default {POPULATION}, at most a quarter of the budget)",
        "generations": "parts of a run (default: the budget divided by the population)",
        "quantile": f"share of a generation that is replaced (worst) or copied (best) (default {QUANTILE})",
        "resample": f"probability that a value is resampled after a copy (default {RESAMPLE})",
        "factors": f"factors for the other values, equally probable (default {list(FACTORS)})",
    },
    assign_lineage=assign_lineage,
    study_errors=study_errors,
    extended_setup=extended_setup,
)

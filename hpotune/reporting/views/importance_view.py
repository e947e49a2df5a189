"""Which hyperparameters the score depends on: Optuna's PED-ANOVA, repeated on resampled and on shuffled trials.

Resampled trials give the interval of each importance (bootstrap). Trials whose scores are shuffled show what a
hyperparameter without any effect reaches by chance: PED-ANOVA is never exactly zero.
Source: Watanabe, Bansal and Hutter 2023, "PED-ANOVA" (arXiv 2304.10255), as implemented in optuna.importance.
"""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpotune.config.load import Study
from hpotune.config.space.ranges import Range, same
from hpotune.config.yaml_source import Value
from hpotune.records.trial import TrialRow
from hpotune.schedule.ranking import by_ranked_value, ranked_objective

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.study import Study as OptunaStudy
    from optuna.trial import FrozenTrial

FEWEST = 20
"""Finished trials that the importance is computed from at least."""
MOST = 500
"""With more finished trials, as many of them are drawn at random."""
REPEATS = 40
_TOP = 0.1
_LEAST_TOP = 5
"""Trials among the best at least, as Optuna advises."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterImportance:
    """The importance of one hyperparameter, as a share of the sum over all of them."""

    name: str
    share: float
    low: float
    """The 95 % bootstrap interval."""
    high: float
    by_chance: float
    """What 95 % of studies reach in which the scores do not depend on it."""

    @property
    def significant(self) -> bool:
        """Whether it is more important than by chance."""
        return self.share > self.by_chance


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportanceView:
    """The hyperparameters by importance for reaching the best scores."""

    parameters: tuple[ParameterImportance, ...]
    """Most important first; empty where it is not computed."""
    trials: int
    """That it was computed from."""
    top: int
    """Trials that count as the best ones."""
    raced: int
    """Trials that are left out, since their scoring ended early (`score.race`) and their scores are estimates."""
    why_not: str
    """Why it is not computed; empty where it is."""


def importance_view(study: Study, rows: Sequence[TrialRow]) -> ImportanceView:
    """The importance for what trials are ranked by, by finished trials."""
    ranges, objectives, rule = study.space.searched, study.config.score.objective, study.config.best
    finished = [row for row in rows if row.state == "finished" and row.kind == "trial"]
    usable = by_ranked_value(objectives, rule, finished)
    raced = sum(row.race is not None for row in rows)
    if why_not := _why_not(ranges, usable, raced=raced):
        return ImportanceView(parameters=(), trials=len(usable), top=0, raced=raced, why_not=why_not)
    sign = 1.0 if ranked_objective(objectives, rule).sense == "maximize" else -1.0
    rng = random.Random(0)
    drawn = rng.sample(usable, MOST) if len(usable) > MOST else usable
    return _computed(ranges, drawn, sign=sign, rng=rng, raced=raced)


def _why_not(ranges: Sequence[Range], usable: Sequence[TrialRow], *, raced: int) -> str:
    """Why the importance is not computed; empty where it is."""
    if not ranges:
        return "the study searches no hyperparameter"
    if len(usable) < FEWEST:
        count = f"{len(usable)} trial{'' if len(usable) == 1 else 's'} finished"
        others = f" ({raced} more ended while they were scored)" if raced else ""
        return f"{count}{others}, and it needs at least {FEWEST}"
    return "all trials have the same score" if len({row.values[0] for row in usable}) == 1 else ""


def _computed(
    ranges: Sequence[Range], rows: Sequence[TrialRow], *, sign: float, rng: random.Random, raced: int
) -> ImportanceView:
    from optuna import logging
    from optuna.importance import PedAnovaImportanceEvaluator

    logging.set_verbosity(logging.WARNING)
    share = min(0.5, max(_TOP, _LEAST_TOP / len(rows)))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
    trials = _frozen(ranges, rows, sign=sign)
    names = [one.name for one in ranges if any(one.name in trial.params for trial in trials)]

    def evaluated(drawn: Sequence[FrozenTrial]) -> dict[str, float]:
        return _evaluated(evaluator, drawn, names)

    measured = evaluated(trials)
    whole, observed = sum(measured.values()), _shares(measured)
    resampled = [_shares(evaluated(rng.choices(trials, k=len(trials)))) for _ in range(REPEATS)]
    shuffled = [_shares(evaluated(_shuffled(trials, rng)), whole=whole) for _ in range(REPEATS)]
    found = [
        ParameterImportance(
            name=name,
            share=observed[name],
            low=min(observed[name], _quantile([one[name] for one in resampled], 0.025)),
            high=max(observed[name], _quantile([one[name] for one in resampled], 0.975)),
            by_chance=_quantile([one[name] for one in shuffled], 0.95),
        )
        for name in names
    ]
    return ImportanceView(
        parameters=tuple(sorted(found, key=lambda one: -one.share)),
        trials=len(rows),
        top=max(_LEAST_TOP, round(share * len(rows))),
        raced=raced,
        why_not="",
    )


def _shares(found: Mapping[str, float], *, whole: float | None = None) -> dict[str, float]:
    """Each importance as a share of the sum, or of another one."""
    whole = sum(found.values()) if whole is None else whole
    return {name: one / whole if whole > 0 else 0.0 for name, one in found.items()}


def _evaluated(
    evaluator: PedAnovaImportanceEvaluator, trials: Sequence[FrozenTrial], names: list[str]
) -> dict[str, float]:
    """The importance of each hyperparameter, not normalized; 0 where it is not finite."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a resampled set with few distinct trials
        found = evaluator.evaluate(_study_of(trials), params=names)
    return {name: found[name] if math.isfinite(found[name]) else 0.0 for name in names}


def _study_of(trials: Sequence[FrozenTrial]) -> OptunaStudy:
    """A study in memory whose trials are these; some may be there several times."""
    from optuna.storages import InMemoryStorage
    from optuna.study import Study as OptunaStudy
    from optuna.study import StudyDirection

    class Resampled(OptunaStudy):
        def get_trials(self, deepcopy: bool = True, states: object = None) -> list[FrozenTrial]:
            return list(trials)

    storage = InMemoryStorage()
    storage.create_new_study([StudyDirection.MINIMIZE], "importance")
    return Resampled("importance", storage)


def _shuffled(trials: Sequence[FrozenTrial], rng: random.Random) -> list[FrozenTrial]:
    """The same points, each with the score of another one."""
    values = [trial.values for trial in trials]
    rng.shuffle(values)
    found = [copy.copy(trial) for trial in trials]
    for trial, value in zip(found, values, strict=True):
        trial.values = value
    return found


def _quantile(values: Sequence[float], level: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(level * len(values)) - 1)]


def _frozen(ranges: Sequence[Range], rows: Sequence[TrialRow], *, sign: float) -> list[FrozenTrial]:
    """The trials as Optuna's; lower values are better."""
    from optuna.trial import create_trial

    found = []
    for number, row in enumerate(rows):
        params: dict[str, Any] = {
            one.name: _label(one, row.params[one.name]) if one.kind == "choice" else row.params[one.name]
            for one in ranges
            if one.name in row.params
        }
        trial = create_trial(
            params=params,
            distributions={one.name: _distribution(one, rows) for one in ranges if one.name in params},
            value=-sign * row.values[0],
        )
        trial.number, trial._trial_id = number, number
        found.append(trial)
    return found


def _label(one: Range, value: Value) -> bool | int | float | str | None:
    """An option as Optuna stores it."""
    at = next((i for i, option in enumerate(one.options) if same(option, value)), None)
    return str(value) if at is None else one.labels[at]


def _distribution(one: Range, rows: Sequence[TrialRow]) -> BaseDistribution:
    """The range as Optuna's distribution, wide enough for the values that were tried."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    tried = [row.params[one.name] for row in rows if one.name in row.params]
    if one.kind == "choice":
        others = dict.fromkeys(_label(one, value) for value in tried)
        return CategoricalDistribution(tuple(dict.fromkeys([*one.labels, *others])))
    numbers = [value for value in tried if isinstance(value, (int, float))]
    low, high = min([one.low, *numbers]), max([one.high, *numbers])
    if one.kind == "int":
        return IntDistribution(int(low), int(high), log=one.log)
    return FloatDistribution(low, high, log=one.log)

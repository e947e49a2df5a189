"""Who goes on from whom: the part of the run that a trial trains, and the trial whose checkpoint it begins with.

The first `population` trials are the first generation, the next so many the second. A trial follows one of the
generation below that has ended, or gives way to one of its best (truncation selection). Everything is read from the
store; what was chosen is written with the trial. Source: Jaderberg et al. 2017, arXiv 1711.09846, section 3.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpotune.config.load import Study as StudyFile
from hpotune.config.space.ranges import needs
from hpotune.records.lineage import FREE, Lineage
from hpotune.search.base.history import history_of
from hpotune.search.base.options import float_option, int_option
from hpotune.search.base.sampler import SamplerSetup
from hpotune.search.base.unit_cube import Cube

POPULATION = 8
"""Of a budget of at least four times as many. The paper takes 20 to 80."""
QUANTILE = 0.2
"""Of a generation, at either end: what is replaced, and what is copied."""
CHOICE_STREAM = 1
"""Its own stream of random numbers: whose checkpoint is copied does not depend on the attempt at a point."""
PLAN_KEY = "generations"
"""Study attribute: population and generations. A study whose budget grows keeps those it began with."""
MAX_CHOICES, CONFLICT_WAIT_S = 8, 0.1
"""Choices of a trial whose place others take meanwhile, and how long it waits for one that should give way."""
LINEAGE_KEY = "lineage"
"""Attribute of a trial."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationPlan:
    """How a budget is cut."""

    population: int
    generations: int

    def generation(self, rank: int) -> int:
        """Of the trial with so many before it; those beyond, instead of failed ones or of a larger budget, are of the
        last.
        """
        return min(rank // self.population, self.generations - 1)


def generation_plan(setup: SamplerSetup) -> GenerationPlan:
    """What the options say, or the budget.

    Raises: ValueError for options that are wrong.
    """
    usual = max(2, min(max(setup.workers, min(POPULATION, setup.trials // 4)), setup.trials // 2))
    population = int_option(setup.options, "population", usual, low=2)
    return GenerationPlan(
        population=population,
        generations=int_option(setup.options, "generations", max(2, setup.trials // population), low=2),
    )


def load_or_save_plan(study: Study, setup: SamplerSetup) -> GenerationPlan:
    """The shape that the study began with; this one, kept with it, where none was."""
    found = study._storage.get_study_system_attrs(study._study_id).get(PLAN_KEY)
    if found is None:
        shape = generation_plan(setup)
        study._storage.set_study_system_attr(study._study_id, PLAN_KEY, [shape.population, shape.generations])
        return shape
    return GenerationPlan(population=int(found[0]), generations=int(found[1]))


def assign_lineage(study: Study, trial: FrozenTrial, setup: SamplerSetup) -> Lineage:
    """Whom a trial goes on from, written with it; what is written already, where it was begun before.

    Of two workers that choose the same place at one moment whoever looks last sees it, and chooses again.
    """
    if LINEAGE_KEY in trial.user_attrs:
        return Lineage.from_stored(trial.user_attrs[LINEAGE_KEY])
    shape = load_or_save_plan(study, setup)
    for _ in range(MAX_CHOICES):
        trials = sorted(study.get_trials(deepcopy=False), key=lambda other: other.number)
        line = next_lineage(trials, study.direction, trial, setup, shape=shape)
        study._storage.set_trial_user_attr(trial._trial_id, LINEAGE_KEY, line.as_stored())
        same = _same_place(study, trial, line)
        if same and min(same) > trial.number and setup.workers > 1:
            time.sleep(CONFLICT_WAIT_S)  # the higher number gives way, if it has not gone on yet
            same = _same_place(study, trial, line)
        if not same:
            break
    study._storage.set_trial_user_attr(trial._trial_id, "rung", line.generation)
    return line


def _same_place(study: Study, trial: FrozenTrial, line: Lineage) -> list[int]:
    """Numbers of other trials that follow the same one."""
    lines = {
        other.number: other.user_attrs.get(LINEAGE_KEY, {})
        for other in study.get_trials(deepcopy=False)
        if other.number != trial.number and line.predecessor is not None
    }
    return [
        float_option
        for float_option, theirs in lines.items()
        if (theirs.get("place"), theirs.get("generation")) == (line.predecessor, line.generation)
    ]


def next_lineage(
    trials: Sequence[FrozenTrial],
    direction: StudyDirection,
    trial: FrozenTrial,
    setup: SamplerSetup,
    *,
    shape: GenerationPlan,
) -> Lineage:
    others = [other for other in trials if other.number != trial.number]
    generations = {other.number: shape.generation(rank) for rank, other in enumerate(trials)}
    mine = shape.generation(sum(other.number < trial.number for other in others))
    history = history_of(others, Cube({}), direction)
    gains = dict(zip(history.numbers.tolist(), history.gains.tolist(), strict=True))
    source = max((generations[n] for n in gains if generations[n] < mine), default=None)
    if source is None:
        return Lineage(generation=mine, generations=shape.generations)
    known = {n: gain for n, gain in gains.items() if generations[n] == source}
    peers = [other for other in others if generations[other.number] == mine]
    blind = [
        other
        for other in peers
        if other.state == TrialState.RUNNING
        and other.number < trial.number
        and LINEAGE_KEY not in other.user_attrs
    ]
    chosen = chosen_of(
        known,
        known_points={other.user_attrs.get(LINEAGE_KEY, {}).get("place") for other in peers},
        ahead=len(blind),
        quantile=float_option(setup.options, "quantile", QUANTILE, low=0.0, high=0.5),
        rng=np.random.default_rng([setup.seed, trial.number, CHOICE_STREAM]),
    )
    return Lineage(generation=mine, generations=shape.generations, **chosen)


def chosen_of(
    gains: Mapping[int, float],
    *,
    taken: Set[int | None],
    ahead: int,
    quantile: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Predecessor, parent and keeps_values of the next trial, by the gains of a generation; larger is better.

    The first one, by number, that nobody follows is followed; `ahead`: trials that choose before this one. Among the
    worst `quantile` of what is known, rounded, at most half of it, it gives way to one of the best so many.
    """
    order = sorted(gains, key=lambda n: (-gains[n], n))
    cut = min(round(quantile * len(order)), len(order) // 2)
    best, worst = order[: max(1, cut)], order[len(order) - cut :]
    free = [n for n in sorted(gains) if n not in taken][ahead:]
    if free and free[0] not in worst:
        return {"predecessor": free[0], "parent": free[0], "keeps_values": True}
    return {
        "predecessor": free[0] if free else None,
        "parent": best[int(rng.integers(len(best)))],
        "keeps_values": False,
    }


def extended_setup(now: SamplerSetup, then: SamplerSetup) -> SamplerSetup:
    """A study whose budget has changed: it keeps its members and generations, and may end before the last of them."""
    shape = generation_plan(then)
    kept = {"population": shape.population, "generations": shape.generations}
    return replace(now, options={**now.options, **kept}, trials=max(now.trials, then.trials))


def study_errors(study: StudyFile, setup: SamplerSetup) -> list[str]:
    """What of a study does not go with trainings that go on from each other."""
    config, shape, source = study.config, generation_plan(setup), study.source
    wanted = shape.population * shape.generations
    found = []
    if setup.trials < wanted:
        baseline = config.budget.trials - setup.trials
        found.append(
            f"{source.location(('budget', 'trials'))}: budget.trials={config.budget.trials} is too few: population "
            f"{shape.population} x {shape.generations} generations{' and the baseline' if baseline else ''} of pbt "
            f"need {wanted + baseline}"
        )
    if setup.workers > shape.population:
        found.append(
            f"{source.location(('budget', 'parallel'))}: budget.parallel={setup.workers} is more than pbt has members "
            f"(search.options.population: {shape.population}), so that some would have nobody to follow; lower it"
        )
    if config.budget.plateau is not None:
        found.append(
            f"{source.location(('budget', 'plateau'))}: budget.plateau looks at whole runs, and pbt scores parts of them; "
            "remove it"
        )
    return found + [
        f"{source.location(r.where)}: {r.name} cannot change while a model trains, as algorithm: pbt would; give it one "
        f"value, or search over {_changeable_keys()}"
        for r in study.space.ranges
        if config.model is not None
        and not _may_change(r.where)
        and (r.kind != "expr" or _depends_on_search(study, r.name))
    ]


def _may_change(where: Sequence[str | int]) -> bool:
    return len(where) > 1 and where[1] in FREE.get(str(where[0]), ())


def _changeable_keys() -> str:
    return ", ".join(sorted(f"{section}.{key}" for section, keys in FREE.items() for key in keys))


def _depends_on_search(study: StudyFile, name: str) -> bool:
    """Whether an expression reads a searched value, itself or through others."""
    ranges = {r.name: r for r in study.space.ranges}
    r = ranges.get(name)
    return r is not None and (r.kind != "expr" or any(_depends_on_search(study, read) for read in needs(r)))

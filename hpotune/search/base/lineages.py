"""Who goes on from whom: the part of the run that a trial trains, and the trial whose checkpoint it begins with.

The first `population` trials are the first generation, the next so many the second. A trial follows one of the
generation below that has ended, or gives way to one of its best (truncation selection). Everything is read from the
store; what was chosen is written with the trial. Source: Jaderberg et al. 2017, arXiv 1711.09846, section 3.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpotune.config.load import Study as StudyFile
from hpotune.config.space.ranges import needs
from hpotune.records.lineage import FREE, Lineage
from hpotune.search.base.history import history_of
from hpotune.search.base.options import number, whole
from hpotune.search.base.sampler import Setup
from hpotune.search.base.unit_cube import Cube

POPULATION = 8
"""Of a budget of at least four times as many. The paper takes 20 to 80."""
QUANTILE = 0.2
"""Of a generation, at either end: what is replaced, and what is copied."""
CHOICE = 1
"""Its own stream of random numbers: whose checkpoint is copied does not depend on the attempt at a point."""
SHAPE = "generations"
"""Study attribute: population and generations. A study whose budget grows keeps those it began with."""
TRIES, PAUSE_S = 8, 0.1
"""Choices of a trial whose place others take meanwhile, and how long it waits for one that should give way."""
LINEAGE = "lineage"
"""Attribute of a trial."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """How a budget is cut."""

    population: int
    generations: int

    def generation(self, rank: int) -> int:
        """Of the trial with so many before it; those beyond, instead of failed ones or of a larger budget, are of the
        last.
        """
        return min(rank // self.population, self.generations - 1)


def shape_of(setup: Setup) -> Shape:
    """What the options say, or the budget.

    Raises: ValueError for options that are wrong.
    """
    usual = max(2, min(max(setup.workers, min(POPULATION, setup.trials // 4)), setup.trials // 2))
    population = whole(setup.options, "population", usual, low=2)
    return Shape(
        population=population,
        generations=whole(setup.options, "generations", max(2, setup.trials // population), low=2),
    )


def kept_shape(study: Study, setup: Setup) -> Shape:
    """The shape that the study began with; this one, kept with it, where none was."""
    found = study._storage.get_study_system_attrs(study._study_id).get(SHAPE)
    if found is None:
        shape = shape_of(setup)
        study._storage.set_study_system_attr(study._study_id, SHAPE, [shape.population, shape.generations])
        return shape
    return Shape(population=int(found[0]), generations=int(found[1]))


def lineage_of(study: Study, trial: FrozenTrial, setup: Setup) -> Lineage:
    """Whom a trial goes on from, written with it; what is written already, where it was begun before.

    Of two workers that choose the same place at one moment whoever looks last sees it, and chooses again.
    """
    if LINEAGE in trial.user_attrs:
        return Lineage(**trial.user_attrs[LINEAGE])
    shape = kept_shape(study, setup)
    for _ in range(TRIES):
        trials = sorted(study.get_trials(deepcopy=False), key=lambda other: other.number)
        line = lineage_among(trials, study.direction, trial, setup, shape=shape)
        study._storage.set_trial_user_attr(trial._trial_id, LINEAGE, asdict(line))
        same = _same_place(study, trial, line)
        if same and min(same) > trial.number and setup.workers > 1:
            time.sleep(PAUSE_S)  # the higher number gives way, if it has not gone on yet
            same = _same_place(study, trial, line)
        if not same:
            break
    study._storage.set_trial_user_attr(trial._trial_id, "rung", line.generation)
    return line


def _same_place(study: Study, trial: FrozenTrial, line: Lineage) -> list[int]:
    """Numbers of other trials that follow the same one."""
    lines = {
        other.number: other.user_attrs.get(LINEAGE, {})
        for other in study.get_trials(deepcopy=False)
        if other.number != trial.number and line.place is not None
    }
    return [
        number
        for number, theirs in lines.items()
        if (theirs.get("place"), theirs.get("generation")) == (line.place, line.generation)
    ]


def lineage_among(
    trials: Sequence[FrozenTrial],
    direction: StudyDirection,
    trial: FrozenTrial,
    setup: Setup,
    *,
    shape: Shape,
) -> Lineage:
    others = [other for other in trials if other.number != trial.number]
    generations = {other.number: shape.generation(rank) for rank, other in enumerate(trials)}
    mine = shape.generation(sum(other.number < trial.number for other in others))
    history = history_of(others, Cube({}), direction)
    gains = dict(zip(history.numbers.tolist(), history.gains.tolist(), strict=True))
    source = max((generations[n] for n in gains if generations[n] < mine), default=None)
    if source is None:
        return Lineage(generation=mine, of=shape.generations)
    known = {n: gain for n, gain in gains.items() if generations[n] == source}
    peers = [other for other in others if generations[other.number] == mine]
    blind = [
        other
        for other in peers
        if other.state == TrialState.RUNNING
        and other.number < trial.number
        and LINEAGE not in other.user_attrs
    ]
    chosen = chosen_of(
        known,
        taken={other.user_attrs.get(LINEAGE, {}).get("place") for other in peers},
        ahead=len(blind),
        quantile=number(setup.options, "quantile", QUANTILE, low=0.0, high=0.5),
        rng=np.random.default_rng([setup.seed, trial.number, CHOICE]),
    )
    return Lineage(generation=mine, of=shape.generations, **chosen)


def chosen_of(
    gains: Mapping[int, float],
    *,
    taken: Set[int | None],
    ahead: int,
    quantile: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Place, parent and keeps of the next trial, by the gains of a generation; larger is better.

    The first one, by number, that nobody follows is followed; `ahead`: trials that choose before this one. Among the
    worst `quantile` of what is known, rounded, at most half of it, it gives way to one of the best so many.
    """
    order = sorted(gains, key=lambda n: (-gains[n], n))
    cut = min(round(quantile * len(order)), len(order) // 2)
    best, worst = order[: max(1, cut)], order[len(order) - cut :]
    free = [n for n in sorted(gains) if n not in taken][ahead:]
    if free and free[0] not in worst:
        return {"place": free[0], "parent": free[0], "keeps": True}
    return {"place": free[0] if free else None, "parent": best[int(rng.integers(len(best)))], "keeps": False}


def widened(now: Setup, then: Setup) -> Setup:
    """A study whose budget has changed: it keeps its members and generations, and may end before the last of them."""
    shape = shape_of(then)
    kept = {"population": shape.population, "generations": shape.generations}
    return replace(now, options={**now.options, **kept}, trials=max(now.trials, then.trials))


def faults(study: StudyFile, setup: Setup) -> list[str]:
    """What of a study does not go with trainings that go on from each other."""
    config, shape, source = study.config, shape_of(setup), study.source
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
        f"value, or search over {_free_names()}"
        for r in study.space.ranges
        if config.model is not None and not _free(r.where) and (r.kind != "expr" or _moves(study, r.name))
    ]


def _free(where: Sequence[str | int]) -> bool:
    return len(where) > 1 and where[1] in FREE.get(str(where[0]), ())


def _free_names() -> str:
    return ", ".join(sorted(f"{section}.{key}" for section, keys in FREE.items() for key in keys))


def _moves(study: StudyFile, name: str) -> bool:
    """Whether an expression reads a searched value, itself or through others."""
    ranges = {r.name: r for r in study.space.ranges}
    r = ranges.get(name)
    return r is not None and (r.kind != "expr" or any(_moves(study, read) for read in needs(r)))

"""Generations, parents and predecessors of trials that continue from other trials' checkpoints (algorithm: pbt).

The first `population` trials are the first generation, the next `population` the second, and so on. A trial takes the
slot of one finished trial of the generation before, its predecessor. It continues from the predecessor's checkpoint
with the same values; where the predecessor is among the worst, from the checkpoint of one of the best with perturbed
values (truncation selection). Everything is read from the storage. `load_or_save_plan` and `assign_lineage` write, the
other functions are pure. Source: Jaderberg et al. 2017, arXiv 1711.09846, section 3.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

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
"""Default population where the budget is at least four times as large. The paper uses 20 to 80."""
QUANTILE = 0.2
"""Share of a generation that is replaced (the worst), and that is copied instead (the best)."""
CHOICE_STREAM = 1
"""Random stream of the choice of the parent: the parent does not depend on how often a point is drawn again."""
PLAN_KEY = "generations"
"""System attribute of the study: [population, generations]. A study whose budget is extended keeps them."""
MAX_CHOICES, CONFLICT_WAIT_S = 8, 0.1
"""Choices of a predecessor that another trial takes at the same time, and how long the lower number waits once."""
LINEAGE_KEY = "lineage"
"""User attribute of a trial that holds its lineage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationPlan:
    """How the budget is divided into generations."""

    population: int
    """Trials per generation."""
    generations: int

    def generation(self, rank: int) -> int:
        """The generation, from 0, of the trial that has `rank` trials before it.

        Trials beyond the plan (instead of failed ones, or from an extended budget) belong to the last generation.
        """
        return min(rank // self.population, self.generations - 1)


def generation_plan(setup: SamplerSetup) -> GenerationPlan:
    """The plan from `search.options`, else from the budget and the number of workers.

    Raises: ValueError for an invalid option.
    """
    default = max(2, min(max(setup.workers, min(POPULATION, setup.trials // 4)), setup.trials // 2))
    population = int_option(setup.options, "population", default, low=2)
    return GenerationPlan(
        population=population,
        generations=int_option(setup.options, "generations", max(2, setup.trials // population), low=2),
    )


def load_or_save_plan(study: Study, setup: SamplerSetup) -> GenerationPlan:
    """The plan saved with the study. Where none is saved, writes that of `setup` to a study attribute."""
    found = study._storage.get_study_system_attrs(study._study_id).get(PLAN_KEY)
    if found is None:
        plan = generation_plan(setup)
        study._storage.set_study_system_attr(study._study_id, PLAN_KEY, [plan.population, plan.generations])
        return plan
    return GenerationPlan(population=int(found[0]), generations=int(found[1]))


def assign_lineage(study: Study, trial: FrozenTrial, setup: SamplerSetup) -> Lineage:
    """The lineage of a running trial; chosen and written to the trial where it has none.

    Writes the user attributes `lineage` and `rung` of the trial, and the study's plan. Two workers may choose the same
    predecessor at the same time: each writes its choice and then reads those of the others, so the later reader sees
    the conflict. The higher number chooses again; the lower waits CONFLICT_WAIT_S once for that.
    """
    if LINEAGE_KEY in trial.user_attrs:
        return Lineage.from_stored(trial.user_attrs[LINEAGE_KEY])
    plan = load_or_save_plan(study, setup)
    for _ in range(MAX_CHOICES):
        trials = sorted(study.get_trials(deepcopy=False), key=lambda other: other.number)
        lineage = next_lineage(trials, study.direction, trial, setup, plan=plan)
        study._storage.set_trial_user_attr(trial._trial_id, LINEAGE_KEY, lineage.as_stored())
        rivals = _trials_with_predecessor_of(study, trial, lineage)
        if rivals and min(rivals) > trial.number and setup.workers > 1:
            time.sleep(CONFLICT_WAIT_S)  # the higher number chooses again, unless it runs already
            rivals = _trials_with_predecessor_of(study, trial, lineage)
        if not rivals:
            break
    study._storage.set_trial_user_attr(trial._trial_id, "rung", lineage.generation)
    return lineage


def _trials_with_predecessor_of(study: Study, trial: FrozenTrial, lineage: Lineage) -> list[int]:
    """Numbers of the other trials of the generation that have the same predecessor."""
    if lineage.predecessor is None:
        return []
    others = {
        other.number: Lineage.from_stored(other.user_attrs[LINEAGE_KEY])
        for other in study.get_trials(deepcopy=False)
        if other.number != trial.number and LINEAGE_KEY in other.user_attrs
    }
    return [
        n
        for n, other in others.items()
        if (other.predecessor, other.generation) == (lineage.predecessor, lineage.generation)
    ]


def next_lineage(
    trials: Sequence[FrozenTrial],
    direction: StudyDirection,
    trial: FrozenTrial,
    setup: SamplerSetup,
    *,
    plan: GenerationPlan,
) -> Lineage:
    """The lineage of a trial by what `trials`, all of the study in the order of their numbers, hold now."""
    others = [other for other in trials if other.number != trial.number]
    generations = {other.number: plan.generation(rank) for rank, other in enumerate(trials)}
    own = plan.generation(sum(other.number < trial.number for other in others))
    history = history_of(others, Cube({}), direction)
    gains = dict(zip(history.numbers.tolist(), history.gains.tolist(), strict=True))
    # the latest earlier generation with a score: where all of one failed, the one before it
    source = max((generations[n] for n in gains if generations[n] < own), default=None)
    if source is None:
        return Lineage(generation=own, generations=plan.generations)
    peers = [other for other in others if generations[other.number] == own]
    undecided = [
        other
        for other in peers
        if other.state == TrialState.RUNNING
        and other.number < trial.number
        and LINEAGE_KEY not in other.user_attrs
    ]
    chosen = choose_parent(
        {n: gain for n, gain in gains.items() if generations[n] == source},
        taken={
            Lineage.from_stored(other.user_attrs[LINEAGE_KEY]).predecessor
            for other in peers
            if LINEAGE_KEY in other.user_attrs
        },
        undecided=len(undecided),
        quantile=float_option(setup.options, "quantile", QUANTILE, low=0.0, high=0.5),
        rng=np.random.default_rng([setup.seed, trial.number, CHOICE_STREAM]),
    )
    return Lineage(
        generation=own,
        generations=plan.generations,
        predecessor=chosen.predecessor,
        parent=chosen.parent,
        keeps_values=chosen.keeps_values,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ParentChoice:
    """Whose checkpoint a trial continues, by trial numbers."""

    predecessor: int | None
    """None: every trial of the generation before has a successor."""
    parent: int
    keeps_values: bool
    """Whether the trial keeps the parent's values; otherwise they are perturbed."""


def choose_parent(
    gains: Mapping[int, float],
    *,
    taken: Set[int | None],
    undecided: int,
    quantile: float,
    rng: np.random.Generator,
) -> ParentChoice:
    """Predecessor and parent of the next trial, by the gains (larger is better) of the generation before.

    The predecessor is the lowest number without a successor, after skipping one for each of the `undecided` trials that
    choose first. `taken`: predecessors of other trials. Where the predecessor is among the worst `quantile` (rounded,
    at most half), the parent is drawn from equally many of the best.
    """
    order = sorted(gains, key=lambda n: (-gains[n], n))
    cut = min(round(quantile * len(order)), len(order) // 2)
    best, worst = order[: max(1, cut)], order[len(order) - cut :]
    free = [n for n in sorted(gains) if n not in taken][undecided:]
    if free and free[0] not in worst:
        return ParentChoice(predecessor=free[0], parent=free[0], keeps_values=True)
    return ParentChoice(
        predecessor=free[0] if free else None,
        parent=best[int(rng.integers(len(best)))],
        keeps_values=False,
    )


def extended_setup(now: SamplerSetup, before: SamplerSetup) -> SamplerSetup:
    """The setup of a study with a changed budget: population and generations stay as they were `before`."""
    plan = generation_plan(before)
    kept = {"population": plan.population, "generations": plan.generations}
    return replace(now, options={**now.options, **kept}, trials=max(now.trials, before.trials))


def study_errors(study: StudyFile, setup: SamplerSetup) -> list[str]:
    """Errors of a study file that pbt cannot run, a line each."""
    config, plan, source = study.config, generation_plan(setup), study.source
    needed = plan.population * plan.generations
    found = []
    if setup.trials < needed:
        baseline = config.budget.trials - setup.trials
        found.append(
            f"{source.location(('budget', 'trials'))}: budget.trials={config.budget.trials} is too few for pbt: "
            f"population {plan.population} x {plan.generations} generations{' and the baseline' if baseline else ''} "
            f"need {needed + baseline}; raise it, or lower search.options.generations"
        )
    if setup.workers > plan.population:
        found.append(
            f"{source.location(('budget', 'parallel'))}: budget.parallel={setup.workers} is more than the population "
            f"of pbt (search.options.population: {plan.population}), so that some trials would have no predecessor; "
            "lower it"
        )
    if config.budget.plateau is not None:
        found.append(
            f"{source.location(('budget', 'plateau'))}: budget.plateau compares whole runs, and pbt scores parts of "
            "them; remove it"
        )
    return found + [
        f"{source.location(r.where)}: {r.name} cannot change during training, as algorithm: pbt would do; give it one "
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
    """Whether an expression depends on a searched range, directly or through other expressions."""
    ranges = {r.name: r for r in study.space.ranges}
    r = ranges.get(name)
    return r is not None and (r.kind != "expr" or any(_depends_on_search(study, read) for read in needs(r)))

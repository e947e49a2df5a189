"""Assigning a point to a running trial: the only file of the search that writes the trial's row and waits.

`assign_point` writes, in this order:
- where the algorithm is pbt: the user attributes `lineage` and `rung` (base/lineages.py);
- the system attribute `hpotune:announced`: the point that the trial is about to take, before its parameters;
- the parameters of the trial, together where the storage can;
- at some trials the user attribute `outlook`: the regret bound (regret_bound.py).
Which point that is, propose.py decides. A sampler may keep its own state in the storage besides (CMA-ES, NSGA-II, the
partition trees, the rows of a Latin hypercube).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Literal, cast

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpotune.config.load import Study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.lineage import Lineage
from hpotune.search.algorithms.registry import algorithm
from hpotune.search.base.storage_view import FinishedTrials, SearchView, trials_from
from hpotune.search.base.trial_update import TrialUpdate, write_update
from hpotune.search.base.unit_cube import Params, distribution
from hpotune.search.propose import Proposal, propose_point
from hpotune.search.regret_bound import scheduled_regret_bound
from hpotune.search.sampler_setup import sampler_setup
from hpotune.search.start_points import file_start_points, known_trials, saved_start_points

ANNOUNCED_KEY = "hpotune:announced"
"""System attribute of a trial: the point that it is about to take."""
MAX_ANNOUNCEMENTS = 8
"""Points that a trial announces before it takes the last one even if another trial has announced it too."""
MAX_WAIT_S, POLL_S = 2.0, 0.02
"""Longest wait for a higher-numbered trial with the same announced point, and the time between two looks."""


def assign_point(
    storage: BaseStorage,
    study: Study,
    config: StudyConfig,
    trial: FrozenTrial,
    *,
    unseen: frozenset[int] = frozenset(),
    finished: FinishedTrials | None = None,
) -> None:
    """Write the missing parameters of a running trial (see the top of the file). The first trials take start points.

    Polls the storage for at most MAX_WAIT_S per announced point, and only if a higher-numbered trial announced it too.
    `unseen`: numbers of trials whose results the search must not use. `finished`: a cache, kept by the caller from one
    trial of this study to the next.
    Raises: ValueError where no point satisfies the constraints.
    """
    finished = finished or FinishedTrials()
    view = partial(SearchView, storage, unseen=unseen - {trial.number}, finished=finished)
    own = optuna.Study(config.name, storage=cast(BaseStorage, view()))
    known = known_trials(storage, own._study_id, study)
    seen = optuna.Study(config.name, storage=cast(BaseStorage, view(known=known))) if known else own
    start_points = saved_start_points(storage, seen._study_id)
    if start_points is None:
        start_points = [start.params for start in file_start_points(study, config)]
    setup = partial(sampler_setup, study, config, number=trial.number, start_points=start_points)
    found = algorithm(config.search.algorithm)
    lineage = None
    if found.assign_lineage is not None:
        lineage = found.assign_lineage(seen, trial, setup())
        trial = storage.get_trial(trial._trial_id)  # the sampler reads the lineage from the trial
    fixed = _fixed_values(seen, trial, start_points, lineage)

    def propose(excluded: Sequence[Params]) -> Proposal:
        return propose_point(
            study.space, seen, trial, fixed=fixed, excluded=excluded, finished=finished,
            make_sampler=lambda salt: found.make(setup(salt=salt)),
        )  # fmt: skip

    point = _announce_unique_point(seen, trial, propose, finished=finished)
    new = {
        r.name: distribution(r)
        for r in study.space.searched
        if r.name in point and r.name not in trial.params
    }
    params = {name: (d.to_internal_repr(point[name]), d) for name, d in new.items()}
    if params:
        write_update(storage, trial._trial_id, TrialUpdate(params=params))
    if lineage is None and not trial.params:
        bound = scheduled_regret_bound(own, setup(), plateau=config.budget.plateau is not None)
        if bound is not None:
            storage.set_trial_user_attr(trial._trial_id, "outlook", asdict(bound))


def _fixed_values(
    study: optuna.Study, trial: FrozenTrial, start_points: Sequence[Params], lineage: Lineage | None
) -> Params:
    """Values that the sampler may not choose: enqueued, announced, of a start point, or kept from the parent."""
    fixed = {**trial.system_attrs.get("fixed_params", {}), **_interrupted_values(trial)}
    if not fixed and trial.number <= len(start_points) + 1:
        rank = sum(other.number < trial.number for other in study.get_trials(deepcopy=False))
        if rank < len(start_points) and (lineage is None or lineage.generation == 0):
            fixed = dict(start_points[rank])
    if lineage is not None and lineage.keeps_values:
        parents = (t for t in study.get_trials(deepcopy=False) if t.number == lineage.parent)
        fixed = {**next(parents).params, **fixed}
    return fixed


def _interrupted_values(trial: FrozenTrial) -> Params:
    """The announced point of a trial whose worker was lost while it wrote the parameters; empty for other trials."""
    return {**trial.system_attrs.get(ANNOUNCED_KEY, {}), **trial.params} if trial.params else {}


def _announce_unique_point(
    study: optuna.Study,
    trial: FrozenTrial,
    propose: Callable[[Sequence[Params]], Proposal],
    *,
    finished: FinishedTrials,
) -> Params:
    """Announce a point that no other trial has or takes at this moment, and return it.

    Each trial first writes its announcement and then reads those of the others, so of two trials with the same point
    the later reader sees the conflict: the higher number draws again, the lower waits for that. No lock is held: a
    worker that is lost in between delays others by at most MAX_WAIT_S.
    """
    announced: list[Params] = []
    while True:
        checked = finished.searched_count  # the proposal differs from the points of the trials before
        proposal = propose(announced)
        study._storage.set_trial_system_attr(trial._trial_id, ANNOUNCED_KEY, proposal.params)
        if not proposal.is_new:
            return proposal.params
        deadline = time.monotonic() + MAX_WAIT_S
        while True:
            conflict = _conflict(study, trial, proposal.params, since=checked)
            if conflict != "higher" or time.monotonic() >= deadline:
                break
            time.sleep(POLL_S)
        announced.append(proposal.params)
        if conflict != "lower" or len(announced) == MAX_ANNOUNCEMENTS:
            return proposal.params


def _conflict(
    study: optuna.Study, trial: FrozenTrial, point: Params, *, since: int
) -> Literal["lower", "higher", ""]:
    """Which trial, numbered `since` or higher, has the same point; empty: none.

    lower: a trial has the point, or a lower-numbered one has announced it: this trial draws again. higher: only
    higher-numbered trials have announced it: they draw again.
    """
    found: Literal["lower", "higher", ""] = ""
    for other in trials_from(study.get_trials(deepcopy=False), since):
        if other.number == trial.number or other.state == TrialState.WAITING:
            continue
        if other.params == point:
            return "lower"
        if other.state == TrialState.RUNNING and other.system_attrs.get(ANNOUNCED_KEY) == point:
            found = "lower" if other.number < trial.number else found or "higher"
    return found

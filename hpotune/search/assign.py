"""The point of a trial: what the search says, written to the trial's row in the storage."""

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
from hpotune.search.algorithms.registry import algorithm
from hpotune.search.base.storage_view import FinishedTrials, SearchView, trials_from
from hpotune.search.base.study_setup import sampler_setup
from hpotune.search.base.unit_cube import Params
from hpotune.search.propose import Drawn, distribution, propose_point
from hpotune.search.regret_bound import scheduled_regret_bound
from hpotune.search.start_points import file_start_points, saved_start_points

ANNOUNCED_KEY = "hpotune:announced"
"""The system attribute of a trial that holds the point it is about to take."""
MAX_ANNOUNCEMENTS = 8
"""Points that are announced by one trial before one is taken anyway."""
MAX_WAIT_S, POLL_S = 2.0, 0.02
"""How long a trial waits for one that announced the same point, and how often it looks."""


def assign_point(
    storage: BaseStorage,
    study: Study,
    config: StudyConfig,
    trial: FrozenTrial,
    *,
    unseen: frozenset[int] = frozenset(),
    finished: FinishedTrials | None = None,
) -> None:
    """Draws what is not drawn yet of a running trial; the first trials are the starting points.

    `unseen`: trials whose ends the search must not know. `finished`: kept from one draw of this study to the next.
    """
    finished = finished or FinishedTrials()
    view = cast(BaseStorage, SearchView(storage, unseen=unseen - {trial.number}, finished=finished))
    seen = optuna.Study(config.name, storage=view)
    beginnings = saved_start_points(storage, seen._study_id)
    beginnings = starts(study, config) if beginnings is None else beginnings
    setup = partial(sampler_setup, study, config, number=trial.number, start_points=beginnings)
    found = algorithm(config.search.algorithm)
    line = found.assign_lineage(seen, trial, setup()) if found.assign_lineage is not None else None
    if line is not None:  # others may end meanwhile, so a sampler reads what was chosen
        trial = storage.get_trial(trial._trial_id)
    fixed = {**trial.system_attrs.get("fixed_params", {}), **_begun(trial)}
    if not fixed and trial.number <= len(beginnings) + 1:
        rank = sum(other.number < trial.number for other in seen.get_trials(deepcopy=False))
        begins = rank < len(beginnings) and (line is None or line.generation == 0)
        fixed = dict(beginnings[rank]) if begins else {}
    if line is not None and line.keeps_values:  # settled, so that it may repeat a point
        parents = (other for other in seen.get_trials(deepcopy=False) if other.number == line.parent)
        fixed = {**next(parents).params, **fixed}

    def drawn(announced: Sequence[Params]) -> Drawn:
        return propose_point(
            study.space, seen, trial, template=study.template, fixed=fixed, announced=announced, finished=finished,
            make=lambda attempt: found.make(setup(salt=attempt)),
        )  # fmt: skip

    point = _alone(seen, trial, drawn, finished=finished)
    for r in study.space.searched:
        if r.name in point and r.name not in trial.params:
            d = distribution(r)
            storage.set_trial_param(trial._trial_id, r.name, d.to_internal_repr(point[r.name]), d)
    if (
        line is None
        and not trial.params
        and (told := scheduled_regret_bound(seen, setup(), plateau=config.budget.plateau is not None))
    ):
        storage.set_trial_user_attr(trial._trial_id, "outlook", asdict(told))


def _begun(trial: FrozenTrial) -> Params:
    """What a worker that died had settled: the point that it had announced, where it had begun to write it."""
    return {**trial.system_attrs.get(ANNOUNCED_KEY, {}), **trial.params} if trial.params else {}


def _alone(
    study: optuna.Study,
    trial: FrozenTrial,
    drawn: Callable[[Sequence[Params]], Drawn],
    *,
    finished: FinishedTrials,
) -> Params:
    """A point that no other worker draws at this moment: announced, then looked for among the others'.

    Of two that announce the same, whoever looks last sees the other's; the higher number draws again, the lower waits
    for that. Nothing is locked: a worker that dies meanwhile holds nobody up for longer than PATIENCE_S.
    """
    tried: list[Params] = []
    while True:
        known = finished.searched_count  # of these a new point is none
        point, new = drawn(tried)
        study._storage.set_trial_system_attr(trial._trial_id, ANNOUNCED_KEY, point)
        if not new:  # settled, or nothing else is left
            return point
        until = time.monotonic() + MAX_WAIT_S
        while (rival := _conflict(study, trial, point, since=known)) == "later" and time.monotonic() < until:
            time.sleep(POLL_S)
        tried.append(point)
        if rival != "first" or len(tried) == MAX_ANNOUNCEMENTS:
            return point


def _conflict(
    study: optuna.Study, trial: FrozenTrial, point: Params, *, since: int
) -> Literal["first", "later", ""]:
    """Whether another trial has this point or is about to take it before this one, or will draw another after all.

    `since`: the lowest number that is looked at.
    """
    found: Literal["first", "later", ""] = ""
    for other in trials_from(study.get_trials(deepcopy=False), since):
        if other.number == trial.number or other.state == TrialState.WAITING:
            continue
        if other.params == point:
            return "first"
        if other.state == TrialState.RUNNING and other.system_attrs.get(ANNOUNCED_KEY) == point:
            found = "first" if other.number < trial.number else found or "later"
    return found


def starts(study: Study, config: StudyConfig | None = None) -> list[Params]:
    """The points that the file itself gives to the first trials, as Optuna stores them."""
    return [one.params for one in file_start_points(study, config or study.config)]

"""The point of a trial: what the search says, written to the trial's row in the storage."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import cast

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from hpotune.search.cube import Params
from hpotune.search.draw import distribution, draw
from hpotune.search.outlook import look_ahead
from hpotune.search.registry import algorithm
from hpotune.search.setup import setup_of
from hpotune.search.starts import kept_starts, own_starts
from hpotune.search.view import SearchView
from hpotune.study.config import StudyConfig
from hpotune.study.lineage import Lineage
from hpotune.study.load import Study


def draw_trial(
    storage: BaseStorage, study: Study, config: StudyConfig, trial: FrozenTrial, *, unseen: frozenset[int]
) -> None:
    """Draws what is not drawn yet of a running trial; the first trials are the starting points.

    `unseen`: trials whose ends the search must not know.
    """
    view = cast(BaseStorage, SearchView(storage, unseen=unseen - {trial.number}))
    seen = optuna.Study(config.name, storage=view)
    beginnings = kept_starts(storage, seen._study_id)
    beginnings = starts(study, config) if beginnings is None else beginnings
    setup = partial(setup_of, study, config, number=trial.number, starts=beginnings)
    found = algorithm(config.search.algorithm)
    line = found.lineage(seen, trial, setup()) if found.lineage is not None else None
    if line is not None:
        trial = _descended(storage, trial, line)
    fixed = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    if not fixed and trial.number <= len(beginnings) + 1:
        rank = sum(other.number < trial.number for other in seen.get_trials(deepcopy=False))
        begins = rank < len(beginnings) and (line is None or line.generation == 0)
        fixed = dict(beginnings[rank]) if begins else {}
    if line is not None and line.keeps:  # settled, so that it may repeat a point
        parents = (other for other in seen.get_trials(deepcopy=False) if other.number == line.parent)
        fixed = {**next(parents).params, **fixed}
    point = draw(
        study.space, seen, trial,
        template=study.template, make=lambda attempt: found.make(setup(salt=attempt)), fixed=fixed,
    )  # fmt: skip
    for r in study.space.searched:
        if r.name in point and r.name not in trial.params:
            d = distribution(r)
            storage.set_trial_param(trial._trial_id, r.name, d.to_internal_repr(point[r.name]), d)
    if line is None and (told := look_ahead(seen, setup(), plateau=config.budget.plateau is not None)):
        storage.set_trial_user_attr(trial._trial_id, "outlook", asdict(told))


def _descended(storage: BaseStorage, trial: FrozenTrial, line: Lineage) -> FrozenTrial:
    """The trial, which says from whom it goes on; a sampler reads it there, for others may end meanwhile."""
    storage.set_trial_user_attr(trial._trial_id, "lineage", asdict(line))
    storage.set_trial_user_attr(trial._trial_id, "rung", line.generation)
    return storage.get_trial(trial._trial_id)


def starts(study: Study, config: StudyConfig | None = None) -> list[Params]:
    """The points that the file itself gives to the first trials, as Optuna stores them."""
    return [one.params for one in own_starts(study, config or study.config)]

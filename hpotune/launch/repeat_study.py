"""The repeats of the finalists (`search.repeats`): the study STUDY/repeats, which trains each again with new seeds.

It is made once the search has ended, by whoever sees that first: `run`, `submit`, `resume`, or a follow-up job. A
search that is extended later, or more finalists or repeats in the study file, add to its list; what was trained stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from hpotune.config.load import Study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import Value
from hpotune.launch.derive import derived_point, make_derived, open_derived
from hpotune.launch.prepare import PreparedStudy
from hpotune.records.derived_points import DerivedPoint, DerivedPoints, read_points
from hpotune.records.trial import TrialRow
from hpotune.schedule.best_trials import eligible_trials
from hpotune.schedule.gpu_hours import gpu_hours_used
from hpotune.schedule.repeats_reserve import latest_start
from hpotune.schedule.stopping_criterion import stop_reason
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import exclusive_lock

SEEDS = 2**32
LEAST_GPU_HOURS = 1e-6
"""A budget of nothing: where the search has used all, no repeat starts, and `status` says why."""


def search_ended(config: StudyConfig, rows: Sequence[TrialRow], *, now: datetime) -> bool:
    """Whether the search has ended with trials whose finalists are to be repeated; False where it failed."""
    if not config.search.repeats or config.search.is_derived:
        return False
    reason = stop_reason(config, rows, now=now)
    if reason is None or reason.is_failure or any(row.state == "running" for row in rows):
        return False
    return bool(eligible_trials(rows))


def open_repeats(
    folder: StudyFolder, study: Study, rows: Sequence[TrialRow], finalists: Sequence[int]
) -> PreparedStudy:
    """The study of the repeats, made or opened; new finalists are added to it, unless some of it runs now.

    Raises: HpotuneError.
    """
    target = folder.repeats
    points = _points(study, rows, finalists)
    folder.jobs.mkdir(exist_ok=True)
    with exclusive_lock(folder.jobs / ".repeats.lock"):  # two at once must not both add to the list
        if not target.resolved_file.is_file():
            listed = DerivedPoints(kind="repeats", base=study.base(), base_loss=None, points=points)
            return make_derived(folder, study, target.path, listed, budget=_budget(study.config, rows))
        opened = open_derived(target.path)
        if any(row.state == "running" for row in opened.store.rows()):
            return opened
        listed = read_points(target.path).with_new(points)
        return make_derived(folder, study, target.path, listed, budget=_budget(study.config, rows))


def _points(study: Study, rows: Sequence[TrialRow], finalists: Sequence[int]) -> list[DerivedPoint]:
    """One repeat of each finalist before the second of any: a study that is cut short has some of each."""
    by_number, config = {row.number: row for row in rows}, study.config
    return [
        derived_point(study, by_number[number], seed=new_seed(config.search.seed, number, repeat))
        for repeat in range(1, config.search.repeats + 1)
        for number in finalists
    ]


def new_seed(seed: int, trial: int, repeat: int) -> int:
    """The seed of a repeat, another one for each trial and repeat, so that their errors are independent.

    It depends on nothing else: a list that grows keeps its seeds. Source: numpy's SeedSequence, which keeps its
    numbers between versions.
    """
    import numpy as np  # login-node verbs start without it

    found = int(np.random.SeedSequence([seed, trial, repeat]).generate_state(1)[0])
    return found if found != seed else (found + 1) % SEEDS


def _budget(config: StudyConfig, rows: Sequence[TrialRow]) -> dict[str, Value]:
    """What the search has left of the study's limits."""
    found: dict[str, Value] = {}
    if config.budget.gpu_hours is not None:
        used = gpu_hours_used(config, rows, now=datetime.now())
        found["gpu_hours"] = max(LEAST_GPU_HOURS, config.budget.gpu_hours - used)
    if (end := latest_start(config.budget, rows)) is not None:
        found["until"] = end.isoformat(sep=" ", timespec="seconds")
    return found

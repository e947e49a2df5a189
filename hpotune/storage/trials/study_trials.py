"""The trials of one study as Optuna's storage holds them, and what may be read from them. Writes nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpotune.config.load import Study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import TrialRow, Worker
from hpotune.search.base.storage_view import FinishedTrials, is_baseline
from hpotune.storage.readers.trial_record import TrialRecord, choice_options, row_of


class StudyTrials:
    """Reads the trials of one study; the rows of finished trials are kept from one look to the next."""

    def __init__(self, storage: BaseStorage, study: Study, *, study_id: int) -> None:
        self.storage = storage
        self.study = study
        self.study_id = study_id
        self.config = study.config
        """May be replaced by one with another budget while the study runs."""
        self._options = choice_options(study.space)
        self.finished = FinishedTrials(lambda trial: row_of(record_of(trial), self._options))

    def all(self) -> list[FrozenTrial]:
        """Every trial, by number."""
        return self.storage.get_all_trials(self.study_id, deepcopy=False)

    def running(self) -> list[FrozenTrial]:
        """Running trials, by number."""
        return [trial for trial in self.all() if trial.state == TrialState.RUNNING]

    def row(self, trial: FrozenTrial) -> TrialRow:
        """The row of a trial."""
        return self.finished.row(trial)

    def rows(self) -> list[TrialRow]:
        """Every trial, by number. Waiting rows beyond the budget, which nobody may claim, are left out."""
        forgiven = self.forgiven()
        count, not_failed_count, trials = self.finished.split(self.all())
        rest = [self.row(trial) for trial in trials]
        open_ = [row for row in rest if row.state != "failed"]
        room = max(0, self.config.budget.trials - not_failed_count)
        surplus = {row.number for row in open_[room:] if row.state == "waiting"}
        rows = self.finished.rows(count, (row for row in rest if row.number not in surplus))
        if forgiven:  # written later than the trial's end
            return [replace(row, forgiven=True) if row.number in forgiven else row for row in rows]
        return rows

    def owner(self, trial_id: int) -> Worker | None:
        """The worker that runs a trial; None where nobody does."""
        trial = self.storage.get_trial(trial_id)
        return self.row(trial).worker if trial.state == TrialState.RUNNING else None

    def forgiven(self) -> frozenset[int]:
        """Numbers of the failed trials that `hpotune retry` has repeated."""
        return frozenset(self.storage.get_study_user_attrs(self.study_id).get("forgiven", ()))


def record_of(trial: FrozenTrial) -> TrialRecord:
    """The same trial without Optuna."""
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        start=trial.datetime_start.timestamp() if trial.datetime_start else None,
        end=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        params=trial.params,
        values=trial.values or [],
        attrs=trial.user_attrs,
    )


def has_no_point(trial: FrozenTrial) -> bool:
    """Whether a waiting trial, not the baseline, has neither drawn nor fixed values."""
    point = trial.params or "fixed_params" in trial.system_attrs
    return trial.state == TrialState.WAITING and not is_baseline(trial) and not point


def not_failed(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that have not failed, in their order."""
    failed = TrialState.FAIL
    return [trial for trial in trials if trial.state != failed]


def finished_for_round(trials: Sequence[FrozenTrial], config: StudyConfig) -> dict[int, bool]:
    """Whether each trial that has not failed is finished for its round, by number; empty in async mode.

    A trial that has reached its first rung is: the round does not wait for its promotion.
    """
    counted = not_failed(trials) if config.execution.mode != "async" else []
    return {trial.number: trial.state.is_finished() or "rungs" in trial.user_attrs for trial in counted}


def waits_for_promotion(trial: FrozenTrial) -> bool:
    """As TrialRow.awaits_promotion."""
    scores = trial.user_attrs.get("rungs") or [{"rung": None}]
    rung = scores[-1]["rung"]
    return trial.state == TrialState.WAITING and rung is not None and rung == trial.user_attrs.get("rung")


def missing_kinds(trials: Sequence[FrozenTrial], config: StudyConfig, *, ahead: int) -> list[str]:
    """The kinds of the rows that are missing until the budget is reached, or `ahead` trials wait.

    `trials`: those that have not failed.
    """
    waiting = sum(trial.state == TrialState.WAITING and not waits_for_promotion(trial) for trial in trials)
    count = max(0, min(config.budget.trials - len(trials), ahead - waiting))
    wants_baseline = config.has_baseline and not any(map(is_baseline, trials))
    return (["baseline"] * wants_baseline + ["trial"] * count)[:count]


def claim_order(waiting: Sequence[FrozenTrial], *, workers: int) -> Iterator[FrozenTrial]:
    """The first trial, the next in random order, the rest: `workers` that come at once try different ones."""
    yield from waiting[:1]
    yield from random.sample(waiting[1:workers], len(waiting[1:workers]))
    yield from waiting[max(1, workers) :]

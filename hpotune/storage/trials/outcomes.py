"""What a study's trials come to, in the storage: how each ends, goes back in line, or rests on a rung.

Every end is an attempt that is kept with the trial. Written so that a death between two writes can be seen and mended.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpotune.config.load import Study
from hpotune.records.trial import Attempt, Failure, TrialResult, TrialRow, Worker
from hpotune.storage.trials import retries as told
from hpotune.storage.trials import rung_scores
from hpotune.storage.trials.finished_cache import Head
from hpotune.storage.trials.rows import attempts_of, live_ones, missing
from hpotune.storage.trials.rung_scores import Reached, Worse
from hpotune.storage.trials.score_limits import tell_broken

AHEAD = 64
"""Rows made in advance: enough for any race, few enough that a study of 10,000 trials is not 10,000 open rows."""

Outcome = Literal["failed", "again", ""]
"""What became of a trial that failed: it has failed, it is in line again, or it was not the teller's any more."""


class Ends:
    """The trials of one study in one storage, and how they end."""

    def __init__(self, storage: BaseStorage, study: Study, *, study_id: int) -> None:
        self._storage = storage
        self._study = study
        self._id = study_id
        self._head = Head(study)
        self.config = study.config
        """May be replaced by one with another budget while the study runs."""

    def rows(self) -> list[TrialRow]:
        """Every trial, by number. Rows beyond the budget that nobody may claim are left out."""
        forgiven = self._forgiven()
        count, ended, trials = self._head.split(self._trials())
        rest = [self._row(trial) for trial in trials]
        live = [row for row in rest if row.state != "failed"]
        room = max(0, self.config.budget.trials - ended)
        surplus = {row.number for row in live[room:] if row.state == "waiting"}
        rows = self._head.rows(count) + [row for row in rest if row.number not in surplus]
        if forgiven:
            rows = [replace(row, forgiven=True) if row.number in forgiven else row for row in rows]
        return rows

    def fill(self) -> None:
        """Appends waiting rows up to the budget, at most AHEAD of them; the baseline first where there is none.

        Two at once may append too many, or two baselines: `claim` never hands out the surplus.
        """
        step = 1  # and twice as many after each look: hundreds of workers may find nothing waiting at once
        while kinds := missing(self._live(), self.config, ahead=AHEAD):
            for kind in kinds[:step]:
                row = create_trial(state=TrialState.WAITING, user_attrs={"kind": kind})
                self._storage.create_new_trial(self._id, template_trial=row)
            if len(kinds) <= step:
                break
            step *= 2

    def beat(self, trial_id: int, *, owner: Worker) -> bool:
        """Says that the owner lives; False when the trial is not its own any more."""
        if self._owner(trial_id) != owner:
            return False
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(trial_id, "beat", time.time())
        return True

    def finish(self, trial_id: int, result: TrialResult) -> bool:
        """Tells a trial's values and everything measured; False when it had ended already."""
        trial = self._storage.get_trial(trial_id)
        ended = attempts_of(trial, self.config, outcome="finished")
        try:
            self._measured(trial_id, result)
            tell_broken(self._storage, trial, self.config, result, ended)
            if ended:
                self._storage.set_trial_user_attr(trial_id, "attempts", told.written(ended))
            self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, result.values)
        except UpdateFinishedTrialError:
            return False
        return True

    def reach(
        self,
        trial_id: int,
        result: TrialResult,
        *,
        owner: Worker | None = None,
        checkpoint: float | None = None,
        swept: bool = False,
        worse: Worse | None = None,
    ) -> Reached:
        """Tells what a trial reached at its rung: at the last it has finished, else it rests, or ends there.

        Empty: it is not the owner's any more, or has told this rung already and gone on. `worse`: see climb.Worse.
        """
        ladder, trial = self.config.search.ladder, self._storage.get_trial(trial_id)
        row = self._row(trial)
        if row.lineage is not None:  # a trial of its own for each part of a run
            mine = owner is None or row.worker == owner
            return "finished" if mine and self.finish(trial_id, result) else ""
        assert ladder is not None, "a trial with rungs is of a study with rungs"
        lost = owner is not None and row.worker != owner
        if row.state != "running" or result.rung is None or result.rung != row.rung or lost:
            return ""
        told_: Reached = "rung"
        ended = attempts_of(trial, self.config, outcome="rung", checkpoint=checkpoint, swept=swept)
        try:
            far = result.rung < ladder.last
            breaks = tell_broken(self._storage, trial, self.config, result, ended, on_its_way=far)
            rung_scores.record(self._storage, trial, result, ladder, breaks=breaks)
        except UpdateFinishedTrialError:
            return ""
        if result.rung == ladder.last:
            told_ = "finished" if self.finish(trial_id, result) else ""
        else:
            self._measured(trial_id, result)
            rows = self.rows()
            row = self._row(self._storage.get_trial(trial_id))
            if rung_scores.ends_here(self.config, ladder, rows, row, metrics=result.metrics, worse=worse):
                told_ = "stopped"
                self._storage.set_trial_user_attr(trial_id, "attempts", told.written(ended))
                rung_scores.stop(self._storage, self._storage.get_trial(trial_id))
            elif not self._release(trial_id, ended):
                told_ = ""
        self._close()
        return told_

    def _measured(self, trial_id: int, result: TrialResult) -> None:
        found = {"metrics": result.metrics, "stderrs": result.stderrs, "checks": result.checks}
        for key, value in found.items():
            if value:
                self._storage.set_trial_user_attr(trial_id, key, value)

    def fail(
        self,
        trial_id: int,
        failure: Failure,
        *,
        metrics: Mapping[str, Any] | None = None,
        owner: Worker | None = None,
        checkpoint: float | None = None,
        swept: bool = False,
    ) -> Outcome:
        """Tells that an attempt failed. By `retry` the trial goes back in line, or has failed and opens its slot.

        `checkpoint`: when the one that it left was written, in Unix seconds. Empty: the trial had ended, or is not the
        owner's any more.
        """
        if owner is not None and self._owner(trial_id) != owner:
            return ""
        trial = self._storage.get_trial(trial_id)
        ended = partial(attempts_of, trial, self.config, failure=failure, checkpoint=checkpoint, swept=swept)
        if told.again(self.config.retry, ended(outcome="failed"), failure):
            return "again" if self._release(trial_id, ended(outcome="paused")) else ""
        if told.stands_still(ended(outcome="failed")):
            failure = told.never_further(failure)
        try:
            for key, value in {
                "metrics": dict(metrics or {}),
                "attempts": told.written(ended(outcome="failed")),
            }.items():
                self._storage.set_trial_user_attr(trial_id, key, value)
            self._storage.set_trial_user_attr(trial_id, "failure", failure.model_dump())
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return ""
        self.fill()
        return "failed"

    def pause(
        self,
        trial_id: int,
        *,
        owner: Worker | None = None,
        checkpoint: float | None = None,
        swept: bool = False,
    ) -> bool:
        """Puts a trial back that its worker was asked to leave: the next one continues it under its number.

        False when it had ended, or is not the owner's any more.
        """
        if owner is not None and self._owner(trial_id) != owner:
            return False
        trial = self._storage.get_trial(trial_id)
        ended = attempts_of(trial, self.config, outcome="paused", checkpoint=checkpoint, swept=swept)
        return self._release(trial_id, ended)

    def _release(self, trial_id: int, ended: Sequence[Attempt]) -> bool:
        try:
            self._storage.set_trial_user_attr(trial_id, "attempts", told.written(ended))
            # unsigned first: a sweep must not see the next worker's trial under this worker's name
            self._storage.set_trial_user_attr(trial_id, "worker", None)
            if self._storage.get_trial(trial_id).user_attrs.get("worker"):
                return False  # another sweep was quicker, and somebody has taken the trial since
            self._storage.set_trial_state_values(trial_id, TrialState.WAITING)
        except UpdateFinishedTrialError:
            return False
        return True

    def _close(self, trials: Sequence[FrozenTrial] | None = None) -> None:
        """Ends trials that rest on a rung where nothing will let them go on any more."""
        if self.config.search.ladder is not None:
            trials = self._trials() if trials is None else trials
            rung_scores.close(self._storage, self.config, trials, [self._row(trial) for trial in trials])

    def _owner(self, trial_id: int) -> Worker | None:
        trial = self._storage.get_trial(trial_id)
        return self._row(trial).worker if trial.state == TrialState.RUNNING else None

    def _running(self) -> list[FrozenTrial]:
        return [trial for trial in self._trials() if trial.state == TrialState.RUNNING]

    def _forgiven(self) -> frozenset[int]:
        return frozenset(self._storage.get_study_user_attrs(self._id).get("forgiven", ()))

    def _live(self) -> list[FrozenTrial]:
        return live_ones(self._trials())

    def _trials(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def _row(self, trial: FrozenTrial) -> TrialRow:
        return self._head.row(trial)

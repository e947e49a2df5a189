"""Writes how trials end: completed, scored at a rung, failed, or WAITING again. Claims nothing.

The end of each attempt is kept with its trial. The order of the writes matters: a process that is killed between two of
them leaves a state that `TrialQueue.requeue_stale` recognises and completes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Literal

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from hpotune.records.trial import Attempt, Failure, TrialResult, Worker
from hpotune.search.base.trial_update import TrialUpdate, create_waiting, write_update
from hpotune.storage.readers.trial_record import stored_attempts
from hpotune.storage.trials import rung_scores
from hpotune.storage.trials.attempts import (
    attempts_with_current,
    is_standstill,
    may_retry,
    standstill_failure,
)
from hpotune.storage.trials.rung_scores import IsWorse, RungOutcome
from hpotune.storage.trials.score_limits import limits_of
from hpotune.storage.trials.study_trials import StudyTrials, missing_kinds, not_failed

AHEAD = 64
"""Waiting rows made in advance: enough for workers that come at once, few enough that a study of 10,000 trials does not
hold 10,000 of them."""

FailureOutcome = Literal["failed", "again", ""]
"""What became of a trial whose attempt failed: it has failed, it waits again, or another worker has it."""


class OutcomeWriter:
    """Writes the ends of the trials of one study."""

    def __init__(self, trials: StudyTrials) -> None:
        self._trials = trials
        self._storage = trials.storage

    def append_waiting(self) -> None:
        """Append waiting rows up to the budget, at most AHEAD of them; the baseline first where there is none."""
        step = 1  # doubled after each look: hundreds of workers may find nothing waiting at once
        while kinds := missing_kinds(not_failed(self._trials.all()), self._trials.config, ahead=AHEAD):
            create_waiting(self._storage, self._trials.study_id, [{"kind": kind} for kind in kinds[:step]])
            if len(kinds) <= step:
                break
            step *= 2

    def renew_heartbeat(self, trial_id: int, *, owner: Worker) -> bool:
        """Renew the trial's heartbeat. Returns False if another worker has claimed it."""
        if self._trials.owner(trial_id) != owner:
            return False
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(trial_id, "beat", time.time())
        return True

    def complete(self, trial_id: int, result: TrialResult) -> bool:
        """Record a trial's result and set it COMPLETE. Returns False if it had ended."""
        trial, config = self._storage.get_trial(trial_id), self._trials.config
        attempts = attempts_with_current(trial, config, outcome="finished")
        limits = limits_of(trial, config, result, attempts)
        ended = {"attempts": stored_attempts(attempts)} if attempts else {}
        update = TrialUpdate(
            user_attrs={**_measurements(result), **limits.user_attrs, **ended},
            system_attrs=limits.system_attrs,
            state=TrialState.COMPLETE,
            values=result.values,
        )
        return self._write(trial_id, update)

    def _write(self, trial_id: int, update: TrialUpdate) -> bool:
        """Write an update. Returns False if the trial has ended, or is not as the update expects."""
        try:
            return write_update(self._storage, trial_id, update)
        except UpdateFinishedTrialError:
            return False

    def record_rung(
        self,
        trial_id: int,
        result: TrialResult,
        *,
        owner: Worker | None = None,
        checkpoint: float | None = None,
        ended_by_other: bool = False,
        is_worse: IsWorse | None = None,
    ) -> RungOutcome:
        """Record a rung's score; the trial completes, waits for promotion, or is pruned.

        Returns "" and writes nothing if `owner` is given and does not run the trial, or the rung has its score.
        `is_worse`: see rung_scores.IsWorse; None: trials are not compared by item.
        """
        config, trial = self._trials.config, self._storage.get_trial(trial_id)
        ladder, row = config.search.ladder, self._trials.row(trial)
        lost = owner is not None and row.worker != owner
        if row.lineage is not None:  # each part of a run is a trial of its own
            return "finished" if not lost and self.complete(trial_id, result) else ""
        assert ladder is not None, "a trial with rungs is of a study with rungs"
        if row.state != "running" or result.rung is None or result.rung != row.rung or lost:
            return ""
        attempts = attempts_with_current(
            trial, config, outcome="rung", checkpoint=checkpoint, ended_by_other=ended_by_other
        )
        is_last = result.rung == ladder.last
        limits = limits_of(trial, config, result, attempts, unfinished=not is_last)
        score = rung_scores.score_of(trial, result, ladder, breaks=limits.breaks)
        if not self._write(
            trial_id,
            replace(
                score,
                system_attrs=limits.system_attrs,
                user_attrs={**limits.user_attrs, **score.user_attrs},
                expected=trial,
            ),
        ):
            return ""
        outcome: RungOutcome
        if is_last:
            outcome = "finished" if self.complete(trial_id, result) else ""
        else:
            outcome = self._prune_or_release(trial, result, attempts, is_worse=is_worse)
        self.prune_unpromotable()
        return outcome

    def _prune_or_release(
        self,
        trial: FrozenTrial,
        result: TrialResult,
        attempts: Sequence[Attempt],
        *,
        is_worse: IsWorse | None,
    ) -> RungOutcome:
        config, trial_id = self._trials.config, trial._trial_id
        assert config.search.ladder is not None, "called for studies with rungs"
        if not self._write(trial_id, TrialUpdate(user_attrs=_measurements(result), expected=trial)):
            return ""
        rows = self._trials.rows()
        row = self._trials.row(self._storage.get_trial(trial_id))
        if rung_scores.is_pruned(
            config, config.search.ladder, rows, row, metrics=result.metrics, is_worse=is_worse
        ):
            ended = {"attempts": stored_attempts(attempts)}
            if not self._write(trial_id, TrialUpdate(user_attrs=ended, expected=trial)):
                return ""
            rung_scores.prune(self._storage, self._storage.get_trial(trial_id))
            return "stopped"
        return "rung" if self.release(trial, attempts) else ""

    def record_failure(
        self,
        trial_id: int,
        failure: Failure,
        *,
        metrics: Mapping[str, object] | None = None,
        owner: Worker | None = None,
        checkpoint: float | None = None,
        ended_by_other: bool = False,
    ) -> FailureOutcome:
        """Record that an attempt failed. By `retry` the trial waits again, or it is set FAIL and another is appended.

        `checkpoint`: when the one that it left was written, in Unix seconds. Returns "" if the trial had ended, or
        `owner` is given and does not run it.
        """
        trial, config = self._storage.get_trial(trial_id), self._trials.config
        if owner is not None and not self._is_run_by(owner, trial):
            return ""
        with_current = partial(
            attempts_with_current,
            trial,
            config,
            failure=failure,
            checkpoint=checkpoint,
            ended_by_other=ended_by_other,
        )
        attempts = with_current(outcome="failed")
        if may_retry(config.retry, attempts, failure):
            return "again" if self.release(trial, with_current(outcome="paused")) else ""
        if is_standstill(attempts):
            failure = standstill_failure(failure)
        attrs = {
            "metrics": dict(metrics or {}),
            "attempts": stored_attempts(attempts),
            "failure": failure.model_dump(),
        }
        if not self._write(trial_id, TrialUpdate(user_attrs=attrs, state=TrialState.FAIL, expected=trial)):
            return ""
        self.append_waiting()
        return "failed"

    def pause(
        self,
        trial_id: int,
        *,
        owner: Worker | None = None,
        checkpoint: float | None = None,
        ended_by_other: bool = False,
    ) -> bool:
        """Release a trial without a failure: the next worker continues it under its number.

        Returns False if it had ended, or `owner` is given and does not run it.
        """
        trial = self._storage.get_trial(trial_id)
        if owner is not None and not self._is_run_by(owner, trial):
            return False
        attempts = attempts_with_current(
            trial, self._trials.config, outcome="paused", checkpoint=checkpoint, ended_by_other=ended_by_other
        )
        return self.release(trial, attempts)

    def _is_run_by(self, owner: Worker, trial: FrozenTrial) -> bool:
        return trial.state == TrialState.RUNNING and self._trials.row(trial).worker == owner

    def release(self, trial: FrozenTrial, attempts: Sequence[Attempt]) -> bool:
        """Set a running trial, as it was read, WAITING with these attempts.

        Returns False if it had ended, or was released or claimed meanwhile.
        """
        released = {"attempts": stored_attempts(attempts), "worker": None}
        return self._write(
            trial._trial_id, TrialUpdate(user_attrs=released, state=TrialState.WAITING, expected=trial)
        )

    def prune_unpromotable(self, trials: Sequence[FrozenTrial] | None = None) -> None:
        """Prune the trials that wait for a promotion that can no longer come.

        `trials`: all of them, by number; None: they are read now.
        """
        if self._trials.config.search.ladder is not None:
            trials = self._trials.all() if trials is None else trials
            rows = [self._trials.row(trial) for trial in trials]
            rung_scores.prune_unpromotable(self._storage, self._trials.config, trials, rows)


def _measurements(result: TrialResult) -> dict[str, object]:
    """What a trial measured, as user attributes; nothing that is empty."""
    race = result.race.model_dump(mode="json") if result.race is not None else None
    measured = {"metrics": result.metrics, "stderrs": result.stderrs, "checks": result.checks, "race": race}
    return {key: value for key, value in measured.items() if value}

"""The trial queue of a study: claim a trial, record how it ends, read the rows.

A study here is an ordinary Optuna study. Its budget is its rows: trials are WAITING until a worker claims one by the
change WAITING -> RUNNING, which the storage grants once. Only the first `budget.trials` rows that have not failed may
be claimed, so no race of workers can finish more; a failed row frees the next.

The queue has a reader of its trials (study_trials.py, which keeps the finished ones), a writer of their ends
(outcome_writer.py), and a search that draws their points (search/assign.py). It never trains or scores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpotune.config.load import Study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import Cause, Failure, TrialResult, TrialRow, Worker
from hpotune.schedule.promotion import next_rung, rung_decisions
from hpotune.schedule.rounds import may_start, round_start
from hpotune.search.assign import assign_point
from hpotune.search.base.storage_view import is_baseline
from hpotune.search.base.trial_update import TrialUpdate, write_update
from hpotune.search.start_points import StartPoint, save_start_points, start_points_settled
from hpotune.storage.backends.optuna_study import create_study, open_study
from hpotune.storage.backends.postgresql import PATIENCE_S
from hpotune.storage.trials import rung_scores
from hpotune.storage.trials.attempts import is_half_released
from hpotune.storage.trials.outcome_writer import FailureOutcome, OutcomeWriter
from hpotune.storage.trials.retries import repeat_failed
from hpotune.storage.trials.rung_scores import IsWorse, RungOutcome
from hpotune.storage.trials.stale import OutputReader, TrialOutput
from hpotune.storage.trials.study_trials import (
    StudyTrials,
    claim_order,
    finished_for_round,
    not_failed,
)

UNOWNED_S = 2.5 * PATIENCE_S
"""A trial that has run for so long without a worker's name was claimed by a process that ended before it wrote one."""
_OF_THE_CLUSTER: tuple[Cause, ...] = ("node", "preempted", "timeout")
"""Why a trial was asked to pause, where its worker could not record it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A trial that this worker has claimed."""

    trial_id: int
    row: TrialRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Nothing may be claimed now, though trials are left."""

    why: Literal["round", "time"]
    """round: the round before still runs, or no point could be drawn. time: no other trial fits into the job."""


class TrialQueue:
    """The trials of one study in one storage, handed out to any number of workers."""

    def __init__(self, storage: BaseStorage, study: Study, *, study_id: int) -> None:
        self._storage = storage
        self._id = study_id
        self._trials = StudyTrials(storage, study, study_id=study_id)
        self._outcomes = OutcomeWriter(self._trials)
        self._assign_point = partial(assign_point, storage, study, finished=self._trials.finished)

    @classmethod
    def create(cls, url: str, study: Study, *, folder: str, adopt: bool = False) -> TrialQueue:
        """Create the study's queue, or open the existing one, with its first waiting trials. `adopt`: see create_study.

        Raises: StoreError when the storage cannot be reached or holds another study of that name.
        """
        storage, study_id = create_study(url, study, folder=folder, adopt=adopt)
        queue = cls(storage, study, study_id=study_id)
        queue.append_waiting()
        return queue

    @classmethod
    def open(cls, url: str, study: Study, *, read_only: bool = False, patient: bool = False) -> TrialQueue:
        """Open the queue of an existing study; `patient`: wait minutes for a store that does not answer.

        Raises: StoreError when the storage cannot be reached or has no such study.
        """
        patience_s = PATIENCE_S if patient else 0
        storage, study_id = open_study(url, study, read_only=read_only, patience_s=patience_s)
        return cls(storage, study, study_id=study_id)

    @property
    def config(self) -> StudyConfig:
        """The study's configuration; may be replaced by one with another budget while the study runs."""
        return self._trials.config

    @config.setter
    def config(self, config: StudyConfig) -> None:
        self._trials.config = config

    def rows(self) -> list[TrialRow]:
        """Every trial, by number. Waiting rows beyond the budget, which nobody may claim, are left out."""
        return self._trials.rows()

    def set_start_points(self, starts: Sequence[StartPoint]) -> bool:
        """Store the points that the first trials take. Returns False if they are stored, or a trial has a point."""
        return save_start_points(self._storage, self._id, starts)

    @property
    def has_start_points(self) -> bool:
        """Whether the start points, possibly none, are stored."""
        return start_points_settled(self._storage, self._id)

    def append_waiting(self) -> None:
        """Append waiting rows up to the budget, at most 64 of them; the baseline first where there is none.

        Two callers at once may append too many, or two baselines: `claim` never hands out the surplus.
        """
        self._outcomes.append_waiting()

    def claim(self, worker: Worker, *, fits: Callable[[TrialRow], bool] | None = None) -> Claim | Wait | None:
        """Claim the next trial. Returns Wait where trials are left but none for now, None where none is left.

        `fits`: whether the worker has the time for a trial; None: for any.

        Writes to the claimed trial: state RUNNING, `worker`, `rung` (in a study with rungs), and its point where it has
        none (search/assign.py). Prunes trials that wait for a promotion that can no longer come, and appends waiting
        rows. If no point keeps the constraints, the trial is recorded as failed (cause user), and Wait is returned.
        Raises: StoreError when the storage does not answer; requeue_stale releases a trial whose claim is half written.
        """
        while True:
            config = self.config
            trials = self._trials.all()
            _, done, rest = self._trials.finished.split(trials)
            counted, finished = not_failed(rest), finished_for_round(trials, config)
            limit, too_long = may_start(config, [*finished.values()]), False
            waiting = self._claimable(trials, counted[: max(0, limit - done)], limit=limit)
            for trial in waiting:
                if fits is not None and not fits(self._trials.row(trial)):
                    too_long = True
                elif claimed := self._set_running(trial, worker):
                    try:
                        return self._claimed(claimed, trial, unseen=self._round_of(finished, limit))
                    except ValueError as error:  # no point keeps the constraints: the next would fail alike
                        self.record_failure(trial._trial_id, Failure(cause="user", message=str(error)))
                        return Wait(why="round")
                    except UpdateFinishedTrialError:
                        continue  # this process was stopped so long that others requeued the trial and ended it
            if too_long:
                return Wait(why="time")
            if waiting and config.search.ladder:
                continue  # others claimed them, and may have released them a rung higher
            if done + len(counted) >= limit:
                return Wait(why="round") if limit < config.budget.trials else None
            self.append_waiting()

    def _claimable(
        self, trials: Sequence[FrozenTrial], open_: Sequence[FrozenTrial], *, limit: int
    ) -> list[FrozenTrial]:
        """Trials that may be claimed, in their order."""
        config = self.config
        if config.search.ladder is None:
            waiting = [trial for trial in open_ if trial.state == TrialState.WAITING]
            return list(claim_order(waiting, workers=config.budget.parallel))
        self._outcomes.prune_unpromotable(trials)
        found = rung_decisions(
            config, config.search.ladder, [self._trials.row(trial) for trial in trials], limit=limit
        )
        return rung_scores.claimable(config, trials, found)

    def _round_of(self, finished: Mapping[int, bool], limit: int) -> frozenset[int]:
        """Numbers of the trials of the current round; none in async mode."""
        if self.config.execution.mode != "batch":
            return frozenset()
        start = round_start(self.config, [*finished.values()])
        return frozenset([*finished][start:limit])

    def _set_running(self, trial: FrozenTrial, worker: Worker) -> FrozenTrial | None:
        """Claim a waiting trial for a worker; the trial as it is then, None where it cannot be had."""
        id_ = trial._trial_id
        try:
            update = TrialUpdate(state=TrialState.RUNNING, user_attrs={"worker": asdict(worker)})
            if not write_update(self._storage, id_, update):
                return None
            claimed = self._storage.get_trial(id_)  # an earlier look lacks what `retry` wrote to it
            if self.config.search.ladder is None or rung_scores.is_unchanged(trial, claimed):
                return claimed
            released = TrialUpdate(state=TrialState.WAITING, user_attrs={"worker": None})
            write_update(self._storage, id_, released)
        except UpdateFinishedTrialError:  # it ended after it was read
            pass
        return None

    def _claimed(self, trial: FrozenTrial, waiting: FrozenTrial, *, unseen: frozenset[int]) -> Claim:
        """Write the rung and the point of a trial that this worker has claimed; `waiting`: the trial before that."""
        id_, ladder, row = trial._trial_id, self.config.search.ladder, self._trials.row(waiting)
        if ladder is not None and row.kind == "trial":
            self._storage.set_trial_user_attr(id_, "rung", next_rung(ladder, row))
        kind = row.kind
        if kind == "baseline" and any(
            is_baseline(other) and other.number < trial.number for other in not_failed(self._trials.all())
        ):
            kind = "trial"  # two were appended at once
            self._storage.set_trial_user_attr(id_, "kind", kind)
        if kind != "baseline" and "rungs" not in trial.user_attrs:
            self._assign_point(self.config, trial, unseen=unseen)
        return Claim(trial_id=id_, row=self._trials.row(self._storage.get_trial(id_)))

    def renew_heartbeat(self, trial_id: int, *, owner: Worker) -> bool:
        """Renew the trial's heartbeat. Returns False if another worker has claimed it."""
        return self._outcomes.renew_heartbeat(trial_id, owner=owner)

    def complete(self, trial_id: int, result: TrialResult) -> bool:
        """Record a trial's result; it has finished. Returns False if it had ended before."""
        return self._outcomes.complete(trial_id, result)

    def record_rung(
        self,
        trial_id: int,
        result: TrialResult,
        *,
        owner: Worker | None = None,
        checkpoint: float | None = None,
        is_worse: IsWorse | None = None,
    ) -> RungOutcome:
        """Record a rung's score; the trial completes, waits for promotion, or is pruned. See OutcomeWriter."""
        return self._outcomes.record_rung(
            trial_id, result, owner=owner, checkpoint=checkpoint, is_worse=is_worse
        )

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
        """Record that an attempt failed; by `retry` the trial waits again or has failed. See OutcomeWriter."""
        return self._outcomes.record_failure(
            trial_id,
            failure,
            metrics=metrics,
            owner=owner,
            checkpoint=checkpoint,
            ended_by_other=ended_by_other,
        )

    def pause(self, trial_id: int, *, owner: Worker | None = None, checkpoint: float | None = None) -> bool:
        """Release a trial without a failure; the next worker continues it under its number. See OutcomeWriter."""
        return self._outcomes.pause(trial_id, owner=owner, checkpoint=checkpoint)

    def requeue_own(
        self,
        me: Worker,
        *,
        is_running: Callable[[Worker], bool],
        read_output: OutputReader,
        cause: Cause = "preempted",
    ) -> list[int]:
        """Release the trials that this job ran before Slurm requeued it, for this cause; returns their numbers.

        A worker is the same when job and task are. `is_running`: whether another worker of the job, started by the same
        batch script, still runs.
        """

        def stale_failure(row: TrialRow) -> Failure | None:
            worker = row.worker
            if worker and (worker.job, worker.task) == (me.job, me.task) and not is_running(worker):
                return Failure(
                    cause=cause, message=f"its job {me.job} was requeued; it had run on {worker.host}"
                )
            return None

        return self.requeue_stale(stale_failure, read_output=read_output)

    def requeue_stale(
        self,
        stale_failure: Callable[[TrialRow], Failure | None],
        *,
        read_output: OutputReader,
        now: float | None = None,
        unowned_s: float | None = None,
    ) -> list[int]:
        """Record how the trials of stale workers end, by their output and `retry`; returns their numbers.

        Several processes may call it at once. `stale_failure`: why the trial's worker is stale; None: it is not. `now`:
        in Unix seconds. `unowned_s`: how long a trial may run without a worker's name; None: UNOWNED_S.
        """
        requeued = []
        for trial in self._trials.running():
            row = self._trials.row(trial)
            if row.worker is None:
                old = row.start is not None and (now or time.time()) - row.start > (unowned_s or UNOWNED_S)
                due = (old or is_half_released(row, stale_failure)) and self._is_unchanged(trial, row)
                if due and self._outcomes.release(trial, row.attempts):
                    requeued.append(row.number)
                continue
            failure = stale_failure(row)
            if not failure:
                continue
            output = read_output(row.number)  # takes long in a large checkpoint
            if self._is_unchanged(trial, row) and self._record_stale(trial, row, output, failure):
                requeued.append(row.number)
        self._outcomes.prune_unpromotable()
        return requeued

    def _is_unchanged(self, trial: FrozenTrial, row: TrialRow) -> bool:
        """Whether the trial still runs as the row says: the same claim, by the same worker, without a newer heartbeat.

        Where a node caches the size of a journal, what it reads may be a second old until it has written itself. So it
        writes the heartbeat that it knows once more, and looks again.
        """
        last = row.last_heartbeat or row.start

        def is_same() -> bool:
            now = self._trials.row(self._storage.get_trial(trial._trial_id))
            same = (now.state, now.worker, now.start) == (row.state, row.worker, row.start)
            return same and (now.last_heartbeat or 0.0) <= (last or 0.0)

        if not is_same():
            return False
        try:
            self._storage.set_trial_user_attr(trial._trial_id, "beat", last)
        except UpdateFinishedTrialError:
            return False
        return is_same()

    def _record_stale(self, trial: FrozenTrial, row: TrialRow, output: TrialOutput, failure: Failure) -> bool:
        """Record the result that a stale worker could not record; without one the trial failed, or waits again.

        Returns False if the trial had ended, or another worker runs it.
        """
        result, id_, write, owner = output.result, trial._trial_id, self._outcomes, row.worker
        if result is not None and result.state == "finished" and result.rung != trial.user_attrs.get("rung"):
            result = None  # of the rung before: this attempt has left nothing
        if result is not None and result.state == "finished":
            if result.rung is None:
                return write.complete(id_, result)
            return bool(write.record_rung(id_, result, owner=owner, ended_by_other=True))
        paused = result is not None and result.failure is None
        if (result is None and failure.cancelled) or (paused and failure.cause not in _OF_THE_CLUSTER):
            return write.pause(id_, owner=owner, checkpoint=output.checkpoint, ended_by_other=True)
        own, metrics = (result.failure, result.metrics) if result is not None else (None, None)
        return bool(
            write.record_failure(
                id_, own or failure, metrics=metrics, owner=owner,
                checkpoint=output.checkpoint, ended_by_other=True,
            )
        )  # fmt: skip

    def retry(self, numbers: Sequence[int]) -> dict[int, int]:
        """Retry failed trials: waiting trials take their points; the old failures are no longer counted.

        Returns failed number -> number of the row that repeats its point.
        Raises: HpotuneError where one has not failed, or the budget has no room for so many.
        """
        return repeat_failed(self._trials, numbers, append_waiting=self.append_waiting)

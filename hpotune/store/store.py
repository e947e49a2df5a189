"""The one door to the Optuna storage: claim a trial, tell its end, read the rows.

A study here is an ordinary Optuna study. Its budget is its rows: trials stand in state WAITING until a worker claims
one by the change WAITING -> RUNNING, which the storage grants once. Only the first `budget.trials` rows that have not
failed may be claimed, so no race of workers can finish more; a failed row frees the next. No torch here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpotune.errors import HpotuneError, StoreError
from hpotune.plan.rounds import may_start, round_start
from hpotune.search.point import draw_trial
from hpotune.search.view import is_baseline
from hpotune.storage import PATIENCE_S, connect, require_file
from hpotune.store import attempts as told
from hpotune.store.head import Head
from hpotune.store.identity import identity, other_study
from hpotune.store.remains import Left, Remains, asked
from hpotune.store.rows import attempts_of, blank, finished_of, half_released, in_turn, live_ones, missing
from hpotune.study.load import Study
from hpotune.study.trial import Attempt, Cause, Failure, TrialResult, TrialRow, Worker

AHEAD = 64
"""Rows made in advance: enough for any race, few enough that a study of 10,000 trials is not 10,000 open rows."""

UNOWNED_S = 2.5 * PATIENCE_S
"""A trial that runs for so long and names no worker was taken by one that died before it could sign."""

Outcome = Literal["failed", "again", ""]
"""What became of a trial that failed: it has failed, it is in line again, or it was not the teller's any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A trial that is now this worker's."""

    trial_id: int
    row: TrialRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Nothing to take now, though trials are left."""

    why: Literal["round", "time"]
    """round: those of the round before go on. time: none of the rest fits into what is left of the job."""


class Store:
    """One study in one storage."""

    def __init__(self, storage: BaseStorage, study: Study, *, study_id: int) -> None:
        self._storage = storage
        self._study = study
        self._id = study_id
        self._head = Head(study)
        self.config = study.config
        """May be replaced by one with another budget while the study runs."""

    @classmethod
    def create(cls, url: str, study: Study, *, folder: str) -> Store:
        """Makes the study, or opens it when it is there and is this one; its first rows stand ready.

        Raises: StoreError when the storage cannot be reached or holds another study of that name.
        """
        storage = connect(url)
        senses = [objective.sense for objective in study.config.score.objective]
        made = optuna.create_study(
            storage=storage, study_name=study.config.name, directions=senses, load_if_exists=True
        )
        owner = made.user_attrs.get("folder")
        if owner not in (None, folder) or [d.name.lower() for d in made.directions] != senses:
            raise StoreError(
                f"{url}: holds another study named {study.config.name!r} (of {owner}); rename this one (name:)"
            )
        same = identity(study)
        if made.user_attrs.get("identity", same) != same:
            raise StoreError(other_study(url, study.config.name))
        if "identity" not in made.user_attrs:
            made.set_user_attr("identity", same)
        if owner is None:
            made.set_user_attr("folder", folder)
            made.set_metric_names([objective.label for objective in study.config.score.objective])
        store = cls(storage, study, study_id=storage.get_study_id_from_name(study.config.name))
        store.fill()
        return store

    @classmethod
    def open(cls, url: str, study: Study, *, read_only: bool = False, patient: bool = False) -> Store:
        """Opens a study that was made before; a patient one waits minutes for a storage that is away.

        Raises: StoreError when the storage cannot be reached or has no such study.
        """
        require_file(url)
        storage = connect(url, read_only=read_only, patience_s=PATIENCE_S if patient else 0)
        try:
            study_id = storage.get_study_id_from_name(study.config.name)
        except KeyError:
            raise StoreError(
                f"{url}: has no study {study.config.name!r}; `hpotune run` or `submit` makes it"
            ) from None
        return cls(storage, study, study_id=study_id)

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

    def claim(self, worker: Worker, *, fits: Callable[[TrialRow], bool] | None = None) -> Claim | Wait | None:
        """The next trial, now running and drawn; Wait where trials are left but none for now; None where none is.

        `fits`: whether the worker has the time for a trial.
        """
        while True:
            trials = self._trials()
            _, ended, rest = self._head.split(trials)
            live, finished = live_ones(rest), finished_of(trials, self.config)
            limit, too_long = may_start(self.config, [*finished.values()]), False
            open_ = live[: max(0, limit - ended)]
            waiting = [trial for trial in open_ if trial.state == TrialState.WAITING]
            for trial in in_turn(waiting, workers=self.config.budget.parallel):
                if fits is not None and not fits(self._row(trial)):
                    too_long = True
                elif self._take(trial):
                    return self._claimed(trial, worker, unseen=self._round_of(finished, limit))
            if too_long:
                return Wait(why="time")
            if ended + len(live) >= limit:
                return Wait(why="round") if limit < self.config.budget.trials else None
            self.fill()

    def _round_of(self, finished: Mapping[int, bool], limit: int) -> frozenset[int]:
        """Numbers of the trials of the round that goes on; none in async mode."""
        if self.config.execution.mode != "batch":
            return frozenset()
        start = round_start(self.config, [*finished.values()])
        return frozenset([*finished][start:limit])

    def _take(self, trial: FrozenTrial) -> bool:
        try:
            return self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:  # somebody ended it between our look and our reach
            return False

    def _claimed(self, trial: FrozenTrial, worker: Worker, *, unseen: frozenset[int]) -> Claim:
        """Signs the trial and draws its point."""
        self._storage.set_trial_user_attr(trial._trial_id, "worker", asdict(worker))
        return Claim(trial_id=trial._trial_id, row=self._drawn(trial, unseen=unseen))

    def _drawn(self, trial: FrozenTrial, *, unseen: frozenset[int]) -> TrialRow:
        kind = trial.user_attrs.get("kind")
        if kind == "baseline" and any(
            is_baseline(t) and t.number < trial.number for t in live_ones(self._trials())
        ):
            kind = "trial"  # two were appended at once
            self._storage.set_trial_user_attr(trial._trial_id, "kind", kind)
        if kind != "baseline":
            draw_trial(self._storage, self._study, self.config, trial, unseen=unseen)
        return self._row(self._storage.get_trial(trial._trial_id))

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
        found = {"metrics": result.metrics, "stderrs": result.stderrs, "checks": result.checks}
        ended = attempts_of(trial, self.config, outcome="finished")
        try:
            for key, value in {**found, "attempts": told.written(ended)}.items():
                if value:
                    self._storage.set_trial_user_attr(trial_id, key, value)
            self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, result.values)
        except UpdateFinishedTrialError:
            return False
        return True

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

    def put_back(
        self, me: Worker, *, alive: Callable[[Worker], bool], left: Left, cause: Cause = "preempted"
    ) -> list[int]:
        """Puts back what an earlier life of this very job left running (Slurm requeued it, for this cause).

        A worker is the same when job and task are; those of the job that live are others of the same batch script.
        """

        def dead(row: TrialRow) -> Failure | None:
            worker = row.worker
            if worker and (worker.job, worker.task) == (me.job, me.task) and not alive(worker):
                return Failure(
                    cause=cause, message=f"its job {me.job} was requeued; it had run on {worker.host}"
                )
            return None

        return self.sweep(dead, left=left)

    def sweep(
        self,
        dead: Callable[[TrialRow], Failure | None],
        *,
        left: Left,
        now: float | None = None,
        unowned_s: float | None = None,
    ) -> list[int]:
        """Settles running trials whose worker is dead, by what they left behind and by `retry`; returns their numbers.

        Safe to call from several places at once. `now` is in Unix seconds; `unowned_s`: after so long a trial that
        names no worker was taken by one that died before it could sign (None: UNOWNED_S).
        """
        swept = []
        for trial in self._running():
            row = self._row(trial)
            if row.worker is None:
                old = row.start is not None and (now or time.time()) - row.start > (unowned_s or UNOWNED_S)
                if old or half_released(row, dead):
                    self._release(trial._trial_id, row.attempts)
                    swept.append(row.number)
                continue
            failure = dead(row)
            if failure and self._owner(trial._trial_id) == row.worker:
                self._settle(trial, left(row.number), failure)
                swept.append(row.number)
        return swept

    def _settle(self, trial: FrozenTrial, left: Remains, failure: Failure) -> None:
        """Tells the result that a dead worker could not tell; without one the trial failed, or goes back in line."""
        result, id_ = left.result, trial._trial_id
        if result is not None and result.state == "finished":
            self.finish(id_, result)
        elif result is not None and result.failure is not None:
            self.fail(id_, result.failure, metrics=result.metrics, checkpoint=left.checkpoint, swept=True)
        elif result is not None or asked(failure):
            self.pause(id_, checkpoint=left.checkpoint, swept=True)
        else:
            self.fail(id_, failure, checkpoint=left.checkpoint, swept=True)

    def retry(self, numbers: Sequence[int]) -> dict[int, int]:
        """Gives failed trials another chance: waiting rows take their points, their failures are forgiven.

        Returns failed number -> number of the row that repeats its point.
        Raises: HpotuneError where one has not failed, or the budget has no room for so many.
        """
        trials, forgiven = {trial.number: trial for trial in self._trials()}, self._forgiven()
        for number in numbers:
            if number not in trials or trials[number].state != TrialState.FAIL or number in forgiven:
                raise HpotuneError(
                    f"trial {number} has not failed (or is tried again already); `hpotune trials` lists them"
                )
        self.fill()
        free = [t for t in self._live()[: self.config.budget.trials] if blank(t)][: len(numbers)]
        if len(free) < len(numbers):
            raise HpotuneError(
                f"the budget has room for {len(free)} of {len(numbers)} trials; "
                f"`hpotune extend --trials +{len(numbers) - len(free)}` first"
            )
        repeats = {}
        for number, row in zip(numbers, free, strict=True):
            self._storage.set_trial_system_attr(row._trial_id, "fixed_params", trials[number].params)
            self._storage.set_trial_user_attr(row._trial_id, "retry_of", number)
            repeats[number] = row.number
        self._storage.set_study_user_attr(self._id, "forgiven", sorted({*forgiven, *numbers}))
        return repeats

    def _forgiven(self) -> frozenset[int]:
        return frozenset(self._storage.get_study_user_attrs(self._id).get("forgiven", ()))

    def _owner(self, trial_id: int) -> Worker | None:
        trial = self._storage.get_trial(trial_id)
        return self._row(trial).worker if trial.state == TrialState.RUNNING else None

    def _running(self) -> list[FrozenTrial]:
        return [trial for trial in self._trials() if trial.state == TrialState.RUNNING]

    def _live(self) -> list[FrozenTrial]:
        return live_ones(self._trials())

    def _trials(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def _row(self, trial: FrozenTrial) -> TrialRow:
        return self._head.row(trial)

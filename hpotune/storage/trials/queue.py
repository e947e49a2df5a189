"""The one door to the Optuna storage: claim a trial, tell its end, read the rows.

A study here is an ordinary Optuna study. Its budget is its rows: trials stand in state WAITING until a worker claims
one by the change WAITING -> RUNNING, which the storage grants once. Only the first `budget.trials` rows that have not
failed may be claimed, so no race of workers can finish more; a failed row frees the next. No torch here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpotune.config.load import Study
from hpotune.errors import HpotuneError, StoreError
from hpotune.records.trial import Cause, Failure, TrialRow, Worker
from hpotune.schedule.promotion import next_rung, turns
from hpotune.schedule.rounds import may_start, round_start
from hpotune.search.assign import draw_trial
from hpotune.search.base.storage_view import Ended, is_baseline
from hpotune.search.start_points import Start, keep_starts, settled
from hpotune.storage.backends.connect import PATIENCE_S, connect, require_file
from hpotune.storage.trials import rung_scores
from hpotune.storage.trials.identity import identity, other_study
from hpotune.storage.trials.outcomes import Ends
from hpotune.storage.trials.outcomes import Outcome as Outcome
from hpotune.storage.trials.rows import blank, finished_of, half_released, in_turn, live_ones
from hpotune.storage.trials.stale import Left, Remains, asked

UNOWNED_S = 2.5 * PATIENCE_S
"""A trial that runs for so long and names no worker was taken by one that died before it could sign."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A trial that is now this worker's."""

    trial_id: int
    row: TrialRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Nothing to take now, though trials are left."""

    why: Literal["round", "time"]
    """round: those of the round before go on, or no point could be drawn. time: none of the rest fits into the job."""


class Store(Ends):
    """One study in one storage."""

    def __init__(self, storage: BaseStorage, study: Study, *, study_id: int) -> None:
        super().__init__(storage, study, study_id=study_id)
        self._seen = Ended()

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

    def begin_with(self, starts: Sequence[Start]) -> bool:
        """Settles the points that the first trials take; False where that is done, or a trial was drawn before."""
        return keep_starts(self._storage, self._id, starts)

    @property
    def begun(self) -> bool:
        """Whether they are settled."""
        return settled(self._storage, self._id)

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
            waiting = self._in_line(trials, open_, limit=limit)
            for trial in waiting:
                if fits is not None and not fits(self._row(trial)):
                    too_long = True
                elif self._take(trial):
                    try:
                        return self._claimed(trial, worker, unseen=self._round_of(finished, limit))
                    except ValueError as error:  # no point keeps the constraints: the next would fail alike
                        self.fail(trial._trial_id, Failure(cause="user", message=str(error)))
                        return Wait(why="round")
            if too_long:
                return Wait(why="time")
            if waiting and self.config.search.ladder:
                continue  # others took them, and may have put them back a rung higher
            if ended + len(live) >= limit:
                return Wait(why="round") if limit < self.config.budget.trials else None
            self.fill()

    def _in_line(
        self, trials: Sequence[FrozenTrial], open_: Sequence[FrozenTrial], *, limit: int
    ) -> list[FrozenTrial]:
        """Trials that may be taken, in their order."""
        ladder = self.config.search.ladder
        if ladder is None:
            waiting = [trial for trial in open_ if trial.state == TrialState.WAITING]
            return list(in_turn(waiting, workers=self.config.budget.parallel))
        self._close(trials)
        found = turns(self.config, ladder, [self._row(trial) for trial in trials], limit=limit)
        return rung_scores.in_line(self.config, trials, found)

    def _round_of(self, finished: Mapping[int, bool], limit: int) -> frozenset[int]:
        """Numbers of the trials of the round that goes on; none in async mode."""
        if self.config.execution.mode != "batch":
            return frozenset()
        start = round_start(self.config, [*finished.values()])
        return frozenset([*finished][start:limit])

    def _take(self, trial: FrozenTrial) -> bool:
        id_ = trial._trial_id
        try:
            if not self._storage.set_trial_state_values(id_, TrialState.RUNNING):
                return False
            if self.config.search.ladder is None or rung_scores.same_turn(
                trial, self._storage.get_trial(id_)
            ):
                return True
            self._storage.set_trial_state_values(id_, TrialState.WAITING)
        except UpdateFinishedTrialError:  # somebody ended it between our look and our reach
            pass
        return False

    def _claimed(self, trial: FrozenTrial, worker: Worker, *, unseen: frozenset[int]) -> Claim:
        """Signs the trial and draws its point."""
        self._storage.set_trial_user_attr(trial._trial_id, "worker", asdict(worker))
        ladder, row = self.config.search.ladder, self._row(trial)
        if ladder is not None and row.kind == "trial":
            self._storage.set_trial_user_attr(trial._trial_id, "rung", next_rung(ladder, row))
        return Claim(trial_id=trial._trial_id, row=self._drawn(trial, unseen=unseen))

    def _drawn(self, trial: FrozenTrial, *, unseen: frozenset[int]) -> TrialRow:
        kind = trial.user_attrs.get("kind")
        if kind == "baseline" and any(
            is_baseline(t) and t.number < trial.number for t in live_ones(self._trials())
        ):
            kind = "trial"  # two were appended at once
            self._storage.set_trial_user_attr(trial._trial_id, "kind", kind)
        if kind != "baseline" and "rungs" not in trial.user_attrs:
            draw_trial(self._storage, self._study, self.config, trial, unseen=unseen, ended=self._seen)
        return self._row(self._storage.get_trial(trial._trial_id))

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
        self._close()
        return swept

    def _settle(self, trial: FrozenTrial, left: Remains, failure: Failure) -> None:
        """Tells the result that a dead worker could not tell; without one the trial failed, or goes back in line."""
        result, id_ = left.result, trial._trial_id
        if result is not None and result.state == "finished" and result.rung != trial.user_attrs.get("rung"):
            result = None  # of the rung before: this turn has left nothing
        if result is not None and result.state == "finished":
            self.finish(id_, result) if result.rung is None else self.reach(id_, result, swept=True)
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

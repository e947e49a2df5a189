"""The one door to the Optuna storage: claim a trial, tell its end, read the rows.

A study here is an ordinary Optuna study. Its budget is its rows: trials stand in state WAITING until a worker claims
one by the change WAITING -> RUNNING, which the storage grants once. Only the first `budget.trials` rows that have not
failed may be claimed, so no race of workers can finish more; a failed row frees the next. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from pydantic import ValidationError

from hpotune.errors import StoreError
from hpotune.search.draw import decode, draw, prior_point
from hpotune.search.registry import make_sampler
from hpotune.search.view import SearchView, is_baseline
from hpotune.storage import PATIENCE_S, connect, require_file
from hpotune.study.folder import SAME, StudyFolder
from hpotune.study.load import Study
from hpotune.study.source import Value
from hpotune.study.trial import LOCAL, Failure, TrialResult, TrialRow, Worker

AHEAD = 64
"""Rows made in advance: enough for any race, few enough that a study of 10,000 trials is not 10,000 open rows."""

UNOWNED_S = 5 * PATIENCE_S
"""A trial that runs for so long and names no worker was taken by one that died before it could sign."""

PAUSES = 3
"""A trial that was stopped so often without a newer checkpoint would be stopped for ever: it has failed."""

REVIVALS = 6
"""How often a checkpointed trial goes back in line after its job was taken from it without a warning."""

_TAKEN = ("timeout", "preempted", "node")
"""Causes that lie in the cluster, not in the trial."""

_STATES = {TrialState.WAITING: "waiting", TrialState.RUNNING: "running", TrialState.COMPLETE: "finished"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A trial that is now this worker's."""

    trial_id: int
    row: TrialRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Remains:
    """What a trial's processes left behind."""

    result: TrialResult | None = None
    checkpoint: float | None = None
    """When it was written, in Unix seconds; None: there is none."""


Left = Callable[[int], Remains]
"""What the processes of a trial left, by its number."""


class Store:
    """One study in one storage."""

    def __init__(self, storage: BaseStorage, study: Study, *, study_id: int) -> None:
        self._storage = storage
        self._study = study
        self._id = study_id
        self._config = study.config

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
        identity = _identity(study)
        if made.user_attrs.get("identity", identity) != identity:
            raise StoreError(_other_study(url, study.config.name))
        if "identity" not in made.user_attrs:
            made.set_user_attr("identity", identity)
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
        rows = [self._row(trial) for trial in self._trials()]
        surplus = {
            row.number for row in [row for row in rows if row.state != "failed"][self._config.budget.trials :]
        }
        return [row for row in rows if not (row.state == "waiting" and row.number in surplus)]

    def fill(self) -> None:
        """Appends waiting rows up to the budget, at most AHEAD of them; the baseline first where there is none.

        Two at once may append too many, or two baselines: `claim` never hands out the surplus.
        """
        live = self._live()
        waiting = sum(trial.state == TrialState.WAITING for trial in live)
        wants_baseline = self._config.checks.baseline and self._config.model is not None
        kinds = ["baseline"] if wants_baseline and not any(map(is_baseline, live)) else []
        for index in range(min(self._config.budget.trials - len(live), AHEAD - waiting)):
            kind = kinds[index] if index < len(kinds) else "trial"
            row = create_trial(state=TrialState.WAITING, user_attrs={"kind": kind})
            self._storage.create_new_trial(self._id, template_trial=row)

    def claim(self, worker: Worker) -> Claim | None:
        """The next trial, now running and drawn; None where none is left to start."""
        while True:
            live = self._live()
            for trial in live[: self._config.budget.trials]:
                if trial.state == TrialState.WAITING and self._take(trial):
                    self._storage.set_trial_user_attr(trial._trial_id, "worker", asdict(worker))
                    return Claim(trial_id=trial._trial_id, row=self._drawn(trial))
            if len(live) >= self._config.budget.trials:
                return None
            self.fill()

    def _take(self, trial: FrozenTrial) -> bool:
        try:
            return self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:  # somebody ended it between our look and our reach
            return False

    def _drawn(self, trial: FrozenTrial) -> TrialRow:
        others = self._trials()
        kind = trial.user_attrs.get("kind")
        if kind == "baseline" and any(is_baseline(t) and t.number < trial.number for t in _live(others)):
            kind = "trial"  # two were appended at once
            self._storage.set_trial_user_attr(trial._trial_id, "kind", kind)
        if kind != "baseline":
            self._draw(trial, first=trial.number == min(t.number for t in others if not is_baseline(t)))
        return self._row(self._storage.get_trial(trial._trial_id))

    def _draw(self, trial: FrozenTrial, *, first: bool) -> None:
        """Draws what is not drawn yet; the first trial is the point of the priors."""
        priors = prior_point(self._study.space) if first else {}
        if priors:
            self._storage.set_trial_system_attr(trial._trial_id, "fixed_params", priors)
        sampler = make_sampler(self._config.search, self._study.space, number=trial.number)
        view = cast(BaseStorage, SearchView(self._storage))
        study = optuna.Study(self._config.name, storage=view, sampler=sampler)
        draw(self._study.space, Trial(study, trial._trial_id), self._study.template)

    def finish(self, trial_id: int, result: TrialResult) -> bool:
        """Tells a trial's values and everything measured; False when it had ended already."""
        told = {"metrics": result.metrics, "stderrs": result.stderrs, "checks": result.checks}
        try:
            for key, value in told.items():
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
    ) -> bool:
        """Tells a trial failed and opens its slot again; False when it had ended, or is not the owner's any more."""
        if owner is not None and self._owner(trial_id) != owner:
            return False
        try:
            self._storage.set_trial_user_attr(trial_id, "failure", failure.model_dump())
            if metrics:
                self._storage.set_trial_user_attr(trial_id, "metrics", dict(metrics))
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False
        self.fill()
        return True

    def pause(self, trial_id: int, *, owner: Worker | None = None, checkpoint: float | None = None) -> bool:
        """Puts a trial back: the next worker continues it under its number and with its parameters.

        One that was stopped PAUSES times without a newer checkpoint (written at `checkpoint`, in Unix seconds) has
        failed instead. False when it had ended, or is not the owner's any more.
        """
        if owner is not None and self._owner(trial_id) != owner:
            return False
        before = self._storage.get_trial(trial_id).user_attrs
        if checkpoint is not None and checkpoint > before.get("checkpoint", 0.0):
            return self._release(trial_id, pauses=0, checkpoint=checkpoint)
        pauses = before.get("pauses", 0) + 1
        if pauses < PAUSES:
            return self._release(trial_id, pauses=pauses)
        message = f"stopped {pauses} times before its end without a newer checkpoint; raise resources.time"
        return self.fail(trial_id, Failure(cause="timeout", message=message), owner=owner)

    def _release(self, trial_id: int, **counts: float) -> bool:
        try:
            for key, value in counts.items():
                self._storage.set_trial_user_attr(trial_id, key, value)
            # unsigned first: a sweep must not see the next worker's trial under this worker's name
            self._storage.set_trial_user_attr(trial_id, "worker", None)
            self._storage.set_trial_state_values(trial_id, TrialState.WAITING)
        except UpdateFinishedTrialError:
            return False
        return True

    def put_back(self, me: Worker, *, alive: Callable[[Worker], bool], left: Left) -> list[int]:
        """Puts back what an earlier life of this very job left running (Slurm requeued it); returns the numbers.

        A worker is the same when job and task are; those of the job that live are others of the same batch script.
        """
        returned = []
        for trial in self._running():
            worker = self._row(trial).worker
            if worker and (worker.job, worker.task) == (me.job, me.task) and not alive(worker):
                self._settle(trial, left(trial.number), failure=None)
                returned.append(trial.number)
        return returned

    def sweep(
        self, dead: Callable[[Worker], Failure | None], *, left: Left, now: float | None = None
    ) -> list[int]:
        """Settles running trials whose worker is dead, by what they left behind or as failed; returns their numbers.

        One with a checkpoint whose job was cancelled, preempted, timed out or lost its node goes back in line.
        Safe to call from several places at once. `now` is in Unix seconds.
        """
        swept = []
        for trial in self._running():
            row = self._row(trial)
            if row.worker is None:
                if row.start is not None and (now or time.time()) - row.start > UNOWNED_S:
                    self._release(trial._trial_id)
                continue
            failure = dead(row.worker)
            if failure and self._owner(trial._trial_id) == row.worker:
                self._settle(trial, left(row.number), failure=failure)
                swept.append(row.number)
        return swept

    def _settle(self, trial: FrozenTrial, left: Remains, *, failure: Failure | None) -> None:
        """Tells the result that a dead worker could not tell; without one the trial failed, or goes back in line."""
        result, revivals = left.result, trial.user_attrs.get("revivals", 0)
        if result is not None and result.state == "finished":
            self.finish(trial._trial_id, result)
        elif result is not None and result.failure is not None:
            self.fail(trial._trial_id, result.failure, metrics=result.metrics)
        elif failure is None or result is not None:
            self.pause(trial._trial_id, checkpoint=left.checkpoint)
        elif left.checkpoint is not None and revivals < REVIVALS and _taken(failure):
            self._release(trial._trial_id, revivals=revivals + 1)
        else:
            self.fail(trial._trial_id, failure)

    def _owner(self, trial_id: int) -> Worker | None:
        trial = self._storage.get_trial(trial_id)
        return self._row(trial).worker if trial.state == TrialState.RUNNING else None

    def _running(self) -> list[FrozenTrial]:
        return [trial for trial in self._trials() if trial.state == TrialState.RUNNING]

    def _live(self) -> list[FrozenTrial]:
        return _live(self._trials())

    def _trials(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def _row(self, trial: FrozenTrial) -> TrialRow:
        attrs = trial.user_attrs
        params: dict[str, Value] = dict(trial.params)
        return TrialRow(
            number=trial.number,
            kind="baseline" if attrs.get("kind") == "baseline" else "trial",
            state=_STATES.get(trial.state, "failed"),  # type: ignore[arg-type]
            params=decode(self._study.space, params),
            values=tuple(trial.values or ()),
            stderrs=tuple(attrs.get("stderrs", ())),
            metrics=attrs.get("metrics", {}),
            failure=Failure.model_validate(attrs["failure"]) if "failure" in attrs else None,
            worker=Worker(**attrs["worker"]) if attrs.get("worker") else None,
            start=trial.datetime_start.timestamp() if trial.datetime_start else None,
            end=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        )


def _live(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state != TrialState.FAIL]


def _identity(study: Study) -> str:
    """A hash of the sections that make a study what it is; 1 and 1.0, null and nothing are the same."""
    same = {key: study.template[key] for key in SAME if study.template.get(key) is not None}
    plain = json.loads(json.dumps(same), parse_float=lambda text: _whole(float(text)))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _whole(number: float) -> int | float:
    return int(number) if number.is_integer() else number


def _other_study(url: str, name: str) -> str:
    theirs = url.replace("postgresql://", "postgresql+psycopg://", 1)  # the driver that is installed
    return (
        f"{url}: holds a study {name!r} of this folder whose sections were others, and results of two studies cannot "
        f"be compared; rename this one (name:), or `optuna delete-study --study-name {name} --storage {theirs}`"
    )


def _taken(failure: Failure) -> bool:
    """Whether the cluster took a job away that was doing well."""
    return failure.cause in _TAKEN or (failure.cause == "killed" and "CANCELLED" in failure.message)


def dead_here(host: str) -> Callable[[Worker], Failure | None]:
    """Tells the death of local workers of this host; says nothing of others."""

    def dead(worker: Worker) -> Failure | None:
        if worker.job != LOCAL or worker.host != host or _alive(worker.pid):
            return None
        return Failure(cause="killed", message=f"its worker (process {worker.pid} on {host}) died")

    return dead


def _alive(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"hpotune" in command  # a number may have been given to another process since


def results_in(folder: StudyFolder) -> Left:
    """Reads what trials left in their folders: a result whose worker died, or lost the store, before it told it."""

    def left(number: int) -> Remains:
        own = folder.trial(number)
        result = None
        with suppress(OSError, ValidationError):
            result = TrialResult.model_validate_json((own / "result.json").read_bytes())
        return Remains(result=result, checkpoint=written(own / "checkpoint"))

    return left


def written(folder: Path) -> float | None:
    """When a folder's newest file was written, in Unix seconds; None where there is no file."""
    times = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # a writer moves it just now
            times.append(path.stat().st_mtime)
    return max(times, default=None)

"""The one door to the Optuna storage: claim a trial, tell its end, read the rows.

A study here is an ordinary Optuna study. Its budget is its rows: trials stand in state WAITING until a worker claims one by the
change WAITING -> RUNNING, which the storage grants once. Only the first `budget.trials` rows that have not failed may be claimed, so no
race of workers can finish more; a failed row frees the next. No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from hpotune.errors import StoreError
from hpotune.search.draw import decode, draw, prior_point
from hpotune.search.registry import make_sampler
from hpotune.storage import connect
from hpotune.study.load import Study
from hpotune.study.source import Value
from hpotune.study.trial import Failure, TrialResult, TrialRow, Worker

AHEAD = 64
"""Rows made in advance: enough for any race, few enough that a study of 10,000 trials is not 10,000 open rows."""

_STATES = {TrialState.WAITING: "waiting", TrialState.RUNNING: "running", TrialState.COMPLETE: "finished"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A trial that is now this worker's."""

    trial_id: int
    row: TrialRow


class Store:
    """One study in one storage."""

    def __init__(self, storage: BaseStorage, study: Study, *, study_id: int) -> None:
        self._storage = storage
        self._study = study
        self._id = study_id
        self._config = study.config

    @classmethod
    def create(cls, url: str, study: Study, *, folder: str) -> Store:
        """Makes the study, or opens it when it is there and belongs to this folder; its first rows stand ready.

        Raises: StoreError when the storage cannot be reached or holds a study of that name from another folder.
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
        if owner is None:
            made.set_user_attr("folder", folder)
            made.set_metric_names([objective.label for objective in study.config.score.objective])
        store = cls(storage, study, study_id=storage.get_study_id_from_name(study.config.name))
        store.fill()
        return store

    @classmethod
    def open(cls, url: str, study: Study, *, read_only: bool = False) -> Store:
        """Opens a study that was made before.

        Raises: StoreError when the storage cannot be reached or has no such study.
        """
        storage = connect(url, read_only=read_only)
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
        """Appends waiting rows up to the budget, at most AHEAD of them. Two at once may append too many; `claim` never hands those out."""
        live = [trial for trial in self._trials() if trial.state != TrialState.FAIL]
        waiting = sum(trial.state == TrialState.WAITING for trial in live)
        for _ in range(min(self._config.budget.trials - len(live), AHEAD - waiting)):
            self._append(live)
            live = [trial for trial in self._trials() if trial.state != TrialState.FAIL]

    def _append(self, live: Sequence[FrozenTrial]) -> None:
        """One waiting row: the baseline where there is none, then the point of the priors, then open ones."""
        wants_baseline = self._config.checks.baseline and self._config.model is not None
        baseline = wants_baseline and not any(trial.user_attrs.get("kind") == "baseline" for trial in live)
        priors = prior_point(self._study.space) if len(live) == int(wants_baseline) and not baseline else {}
        attrs = {"kind": "baseline" if baseline else "trial"}
        row = create_trial(
            state=TrialState.WAITING,
            user_attrs=attrs,
            system_attrs={"fixed_params": priors} if priors else {},
        )
        self._storage.create_new_trial(self._id, template_trial=row)

    def claim(self, worker: Worker) -> Claim | None:
        """The next trial, now running and drawn; None where none is left to start."""
        while True:
            live = [trial for trial in self._trials() if trial.state != TrialState.FAIL]
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
        if trial.user_attrs.get("kind") != "baseline":
            sampler = make_sampler(self._config.search, self._study.space, number=trial.number)
            study = optuna.Study(self._config.name, storage=_SearchView(self._storage), sampler=sampler)
            draw(self._study.space, Trial(study, trial._trial_id), self._study.template)
        return self._row(self._storage.get_trial(trial._trial_id))

    def finish(self, trial_id: int, result: TrialResult) -> None:
        """Tells a trial's values and everything measured."""
        for key, value in (
            ("metrics", result.metrics),
            ("stderrs", result.stderrs),
            ("checks", result.checks),
        ):
            self._storage.set_trial_user_attr(trial_id, key, value)
        self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, result.values)

    def fail(self, trial_id: int, failure: Failure, *, metrics: Mapping[str, Any] | None = None) -> bool:
        """Tells a trial failed and opens its slot again; False when it had ended already."""
        try:
            self._storage.set_trial_user_attr(trial_id, "failure", failure.model_dump())
            if metrics:
                self._storage.set_trial_user_attr(trial_id, "metrics", dict(metrics))
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False
        self.fill()
        return True

    def pause(self, trial_id: int) -> None:
        """Puts a checkpointed trial back: the next worker continues it under its number and with its parameters."""
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(trial_id, TrialState.WAITING)

    def put_back(self, me: Worker) -> list[int]:
        """Puts back what an earlier life of this very job left running (Slurm requeued it); returns the numbers."""
        running = [trial for trial in self._trials() if trial.state == TrialState.RUNNING]
        mine = [
            t
            for t in running
            if (w := self._row(t).worker) is not None and (w.job, w.task) == (me.job, me.task)
        ]
        for trial in mine:
            self.pause(trial._trial_id)
        return [trial.number for trial in mine]

    def sweep(self, dead: Callable[[Worker], Failure | None]) -> list[int]:
        """Fails running trials whose worker is dead; returns their numbers. Safe to call from several places at once."""
        swept = []
        for trial in self._trials():
            row = self._row(trial)
            failure = dead(row.worker) if row.state == "running" and row.worker else None
            if failure and self.fail(trial._trial_id, failure):
                swept.append(row.number)
        return swept

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
            worker=Worker(**attrs["worker"]) if "worker" in attrs else None,
            start=trial.datetime_start.timestamp() if trial.datetime_start else None,
            end=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        )


def _delegated(name: str) -> Callable[..., Any]:
    def call(self: _SearchView, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the storage takes
        return getattr(self.inner, name)(*args, **kwargs)

    return call


class _SearchView(BaseStorage):
    """The storage as samplers see it: without the baseline, whose empty parameters would empty Optuna's intersection search space."""

    locals().update({name: _delegated(name) for name in BaseStorage.__abstractmethods__})

    def __init__(self, inner: BaseStorage) -> None:
        self.inner = inner

    def get_all_trials(  # type: ignore[override]
        self, study_id: int, deepcopy: bool = True, states: Iterable[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Trials that were drawn."""
        wanted = tuple(states) if states is not None else None
        trials = self.inner.get_all_trials(study_id, deepcopy=deepcopy, states=wanted)
        return [trial for trial in trials if trial.user_attrs.get("kind") != "baseline"]


def as_json(row: TrialRow) -> dict[str, Value]:
    """A row as `--json` prints it."""
    values: dict[str, Value] = json.loads(json.dumps(asdict(row), default=lambda model: model.model_dump()))
    return values

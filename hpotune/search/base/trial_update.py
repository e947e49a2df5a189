"""What changes in a trial at one moment, written together: one transaction of a database, one append to a journal.

A single attribute costs a transaction of its own, with its own wait for the disk. Only writes that belong to one moment
go into one update; what others must see in between (an announced point) stays a write of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

MISSING = "Record does not exist."
"""Of the KeyError for a trial or study that is not there, as Optuna words it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialUpdate:
    """Changes of one trial."""

    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, tuple[float, BaseDistribution]] = field(default_factory=dict)
    """New values by name as Optuna stores them (`to_internal_repr`), with their distributions."""
    intermediate_values: Mapping[int, float] = field(default_factory=dict)
    state: TrialState | None = None
    """RUNNING is granted to one of several that ask for it at once."""
    values: Sequence[float] | None = None
    at: datetime = field(default_factory=datetime.now)
    """Start or end of the trial, where the state says so: local time, as Optuna's."""
    expected: FrozenTrial | None = None
    """The trial as it was read: nothing is written unless it is still in the same state, of the same claim. None: any.
    """

    def is_allowed(self, now: FrozenTrial) -> bool:
        """Whether a trial that reads so now is the expected one."""
        return self.expected is None or _claim_of(now) == _claim_of(self.expected)

    def was_written(self, now: FrozenTrial) -> bool:
        """Whether a trial that reads so now holds this update: it is repeated because its answer was lost."""
        return (
            self.state in (None, now.state)
            and all(now.user_attrs.get(key) == value for key, value in self.user_attrs.items())
            and all(now.system_attrs.get(key) == value for key, value in self.system_attrs.items())
        )


def _claim_of(trial: FrozenTrial) -> tuple[object, ...]:
    """The values that differ between two claims of a trial; for a waiting trial also its point, if it has one."""
    fixed = trial.system_attrs.get("fixed_params") if trial.state == TrialState.WAITING else None
    return trial.state, trial.datetime_start, trial.user_attrs.get("worker"), fixed


def write_update(storage: BaseStorage, trial_id: int, update: TrialUpdate) -> bool:
    """Write an update. Returns False, with nothing written, where RUNNING is asked for and the trial is not WAITING, or
    where the trial is not as the update expects.

    A storage of hpotune's writes it whole or not at all, but for RUNNING in a journal, which goes first. Any other
    storage of Optuna's gets call after call: RUNNING first, another state last.
    Raises: UpdateFinishedTrialError where the trial has ended, KeyError where there is none.
    """
    whole = cast("Callable[[int, TrialUpdate], bool] | None", getattr(storage, "write_update", None))
    return whole(trial_id, update) if whole is not None else _write_each(storage, trial_id, update)


def _write_each(storage: BaseStorage, trial_id: int, update: TrialUpdate) -> bool:
    """Write an update call by call."""
    state = update.state
    if update.expected is not None and not update.is_allowed(now := storage.get_trial(trial_id)):
        return update.was_written(now)
    if state == TrialState.RUNNING and not storage.set_trial_state_values(trial_id, state):
        return False
    for name, (value, distribution) in update.params.items():
        storage.set_trial_param(trial_id, name, value, distribution)
    for key, value in update.system_attrs.items():
        storage.set_trial_system_attr(trial_id, key, value)
    for step, value in update.intermediate_values.items():
        storage.set_trial_intermediate_value(trial_id, step, value)
    for key, value in update.user_attrs.items():
        storage.set_trial_user_attr(trial_id, key, value)
    if state is not None and state != TrialState.RUNNING:
        return storage.set_trial_state_values(trial_id, state, update.values)
    return True


def create_waiting(storage: BaseStorage, study_id: int, attrs: Sequence[Mapping[str, Any]]) -> None:
    """Append WAITING trials with these user attributes, in their order."""
    whole = cast(
        "Callable[[int, Sequence[Mapping[str, Any]]], None] | None", getattr(storage, "create_waiting", None)
    )
    if whole is not None:
        whole(study_id, attrs)
        return
    for each in attrs:
        row = create_trial(state=TrialState.WAITING, user_attrs=dict(each))
        storage.create_new_trial(study_id, template_trial=row)

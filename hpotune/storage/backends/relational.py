"""Optuna's relational storage, read without its ORM, and written to in one transaction for what belongs together.

Same tables, same meaning: any program of Optuna's reads and writes beside it. What is not overridden here is Optuna's.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility, json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from hpotune.search.base.trial_update import MISSING, TrialUpdate
from hpotune.storage.backends.frozen_trials import Fingerprint, Placeholders, Query, read_changed, read_trial
from hpotune.storage.backends.trial_writer import TrialWriter

READS = "hpotune_reads"
"""Execution option of a connection that only reads: SQLite then lets others write at the same time."""


class Tables(_CachedStorage):
    """The trials of an SQLite file or a PostgreSQL database; finished ones, and those that wait unchanged, are kept."""

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._mark = Placeholders(backend.engine.name)
        self._reader: Engine = backend.engine.execution_options(**{READS: True})
        self._open: dict[int, dict[int, Fingerprint | None]] = {}
        """By study: fingerprints of the trials that have not ended, by id."""
        self._last: dict[int, int] = {}
        """By study: the highest id that was read."""
        self._ordered: dict[int, list[FrozenTrial]] = {}
        """By study: its trials by number."""

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Every trial, by number."""
        if deepcopy or states is not None:
            return super().get_all_trials(study_id, deepcopy, states)
        self._read_trials_from_remote_storage(study_id)
        with self._lock:
            return list(self._ordered.get(study_id, ()))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """One trial; a finished one that was read before is not read again."""
        with self._lock:
            cached = self._get_cached_trial(trial_id)
        if cached is not None:
            return cached
        with transaction(self._reader) as connection:
            return read_trial(_query(connection), self._mark, trial_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """The user attributes of a study."""
        text = (
            "SELECT a.key, a.value_json FROM studies s LEFT JOIN study_user_attributes a ON a.study_id = s.study_id "
            f"WHERE s.study_id = {self._mark.one}"
        )
        with transaction(self._reader) as connection:
            found = _query(connection)(text, [study_id])
        if not found:
            raise KeyError(MISSING)
        return {key: json.loads(value) for key, value in found if key is not None}

    def write_update(self, trial_id: int, update: TrialUpdate) -> bool:
        """Write an update in one transaction; see search.base.trial_update.write_update."""
        with transaction(self._backend.engine) as connection:
            writer = TrialWriter(connection)
            locked = writer.locked(trial_id)
            if update.state == TrialState.RUNNING and locked.state != "WAITING":
                return locked.state == "RUNNING" and writer.was_written(locked, update)
            if update.expected is not None:
                now = read_trial(_query(connection), self._mark, trial_id)
                if not update.is_allowed(now):
                    return update.was_written(now)
            self._check_distributions(connection, locked.study_id, update.params)
            writer.write(trial_id, update)
        self._forget(trial_id)
        return True

    def create_waiting(self, study_id: int, attrs: Sequence[Mapping[str, Any]]) -> None:
        """Append WAITING trials with these user attributes, in one transaction."""
        with transaction(self._backend.engine) as connection:
            TrialWriter(connection).append_waiting(study_id, attrs)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ANN401 - as Optuna's
        """Write one user attribute."""
        self.write_update(trial_id, TrialUpdate(user_attrs={key: value}))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ANN401 - as Optuna's
        """Write one system attribute."""
        self.write_update(trial_id, TrialUpdate(system_attrs={key: value}))

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Change the state of a trial. Returns False where RUNNING is asked for and it is not WAITING."""
        return self.write_update(trial_id, TrialUpdate(state=state, values=values))

    def _check_distributions(
        self, connection: Connection, study_id: int, params: Mapping[str, tuple[float, BaseDistribution]]
    ) -> None:
        """Raises: ValueError for a distribution that does not fit the one that the study has for the name."""
        known = self._studies[study_id].param_distribution if study_id in self._studies else {}
        for name, (_, distribution) in params.items():
            if name not in known:
                text = (
                    "SELECT p.distribution_json FROM trial_params p JOIN trials t ON t.trial_id = p.trial_id "
                    f"WHERE t.study_id = {self._mark.one} AND p.param_name = {self._mark.one} LIMIT 1"
                )
                found = connection.exec_driver_sql(text, (study_id, name)).fetchone()
                known[name] = json_to_distribution(found[0]) if found else distribution
            check_distribution_compatibility(known[name], distribution)

    def _forget(self, trial_id: int) -> None:
        """Read a trial again at the next look, in whatever state it is."""
        with self._lock:
            for fingerprints in self._open.values():
                if trial_id in fingerprints:
                    fingerprints[trial_id] = None

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        with self._lock:
            known, above = self._open.setdefault(study_id, {}), self._last.get(study_id, -1)
            with transaction(self._reader) as connection:
                found, open_ = read_changed(
                    _query(connection), self._mark, study_id, known=known, above=above
                )
            self._add_trials_to_cache(study_id, found)
            self._open[study_id] = dict(open_)
            self._last[study_id] = max([above, *(trial._trial_id for trial in found)])

    def _add_trials_to_cache(self, study_id: int, trials: list[FrozenTrial]) -> None:
        self._studies.setdefault(study_id, _StudyInfo())
        super()._add_trials_to_cache(study_id, trials)
        ordered = self._ordered.setdefault(study_id, [])
        for trial in trials:
            if trial.number < len(ordered) and ordered[trial.number].number == trial.number:
                ordered[trial.number] = trial
            else:
                ordered.append(trial)
        if (
            trials and len(ordered) != ordered[-1].number + 1
        ):  # one that this process made is ahead of the others
            every = self._studies[study_id].trials
            self._ordered[study_id] = [every[number] for number in sorted(every)]


def _query(connection: Connection) -> Query:
    return lambda text, values: connection.exec_driver_sql(text, tuple(values)).fetchall()


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A connection with a transaction around the body.

    Raises: StorageInternalError where the database does not answer, as Optuna's calls do.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        raise StorageInternalError(str(error)) from error

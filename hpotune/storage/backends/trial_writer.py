"""Writes trials into the tables of Optuna's relational storage, without its ORM: one statement for all of a kind.

Each method is called in a transaction. SQLite has one writer at a time (BEGIN IMMEDIATE), PostgreSQL locks the row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from math import inf, isnan
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy.engine import Connection

from hpotune.search.base.trial_update import MISSING, TrialUpdate

_TIME = "%Y-%m-%d %H:%M:%S.%f"


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedTrial:
    """An unfinished trial that no other transaction can change until the end of this one."""

    trial_id: int
    study_id: int
    state: str
    """WAITING or RUNNING."""
    start: object
    """As stored; None: never started."""


class TrialWriter:
    """Writes by one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._postgres = connection.engine.name == "postgresql"
        self._mark = "%s" if self._postgres else "?"

    def locked(self, trial_id: int) -> LockedTrial:
        """A trial, locked.

        Raises: KeyError where there is none, UpdateFinishedTrialError where it has ended.
        """
        lock = " FOR UPDATE" if self._postgres else ""
        text = "SELECT study_id, number, state, datetime_start FROM trials WHERE trial_id = "
        found = self._run(f"{text}{self._mark}{lock}", [trial_id]).fetchone()
        if found is None:
            raise KeyError(MISSING)
        study_id, number, state, start = found
        if TrialState[state].is_finished():
            raise UpdateFinishedTrialError(f"Trial#{number} has already finished and can not be updated.")
        return LockedTrial(trial_id=trial_id, study_id=study_id, state=state, start=start)

    def was_written(self, trial: LockedTrial, update: TrialUpdate) -> bool:
        """Whether this update made the trial RUNNING: it is repeated because its answer was lost."""
        start = trial.start.strftime(_TIME) if isinstance(trial.start, datetime) else trial.start
        if "worker" not in update.user_attrs or start != _stored(update.at):
            return False
        text = (
            f"SELECT value_json FROM trial_user_attributes WHERE trial_id = {self._mark} AND key = 'worker'"
        )
        found = self._run(text, [trial.trial_id]).fetchone()
        return found is not None and bool(json.loads(found[0]) == update.user_attrs["worker"])

    def write(self, trial_id: int, update: TrialUpdate) -> None:
        """Write an update of a trial that is locked."""
        for table, attrs in (("user", update.user_attrs), ("system", update.system_attrs)):
            rows = [(trial_id, key, json.dumps(value)) for key, value in attrs.items()]
            self._upsert(f"trial_{table}_attributes", ("trial_id", "key", "value_json"), rows, keys=2)
        params = [
            (trial_id, name, value, distribution_to_json(distribution))
            for name, (value, distribution) in update.params.items()
        ]
        self._upsert(
            "trial_params", ("trial_id", "param_name", "param_value", "distribution_json"), params, keys=0
        )
        for table, name, order, numbers in (
            ("trial_values", "value", "objective", dict(enumerate(update.values or ()))),
            ("trial_intermediate_values", "intermediate_value", "step", update.intermediate_values),
        ):
            numbered = [(trial_id, step, *_number(value)) for step, value in numbers.items()]
            self._upsert(table, ("trial_id", order, name, f"{name}_type"), numbered, keys=2)
        if update.state is not None:
            self._set_state(trial_id, update.state, _stored(update.at))

    def append_waiting(self, study_id: int, attrs: Sequence[Mapping[str, Any]]) -> None:
        """Append WAITING trials with these user attributes; the numbers of a study's trials have no gaps.

        Raises: KeyError where there is no such study.
        """
        lock = " FOR UPDATE" if self._postgres else ""
        if not self._run(f"SELECT 1 FROM studies WHERE study_id = {self._mark}{lock}", [study_id]).fetchall():
            raise KeyError(MISSING)
        count = self._run(f"SELECT COUNT(*) FROM trials WHERE study_id = {self._mark}", [study_id]).scalar()
        insert = f"INSERT INTO trials (number, study_id, state) VALUES ({self._marks(3)})"
        rows = []
        for number, each in enumerate(attrs, start=count or 0):
            made = self._run(insert + " RETURNING trial_id" * self._postgres, [number, study_id, "WAITING"])
            id_ = made.scalar() if self._postgres else made.lastrowid
            rows += [(id_, key, json.dumps(value)) for key, value in each.items()]
        self._upsert("trial_user_attributes", ("trial_id", "key", "value_json"), rows, keys=2)

    def _set_state(self, trial_id: int, state: TrialState, at: str) -> None:
        column = "datetime_complete" if state.is_finished() else "datetime_start"
        changed = {"state": state.name, **({column: at} if state != TrialState.WAITING else {})}
        columns = ", ".join(f"{name} = {self._mark}" for name in changed)
        self._run(f"UPDATE trials SET {columns} WHERE trial_id = {self._mark}", [*changed.values(), trial_id])

    def _upsert(
        self, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], *, keys: int
    ) -> None:
        """Insert rows, or change those that are there; `keys`: how many columns tell them apart; 0: none is changed."""
        if not rows:
            return
        changed = ", ".join(f"{name} = excluded.{name}" for name in columns[keys:])
        conflict = f"({', '.join(columns[:keys])}) DO UPDATE SET {changed}" if keys else "DO NOTHING"
        groups = ", ".join([f"({self._marks(len(columns))})"] * len(rows))
        text = f"INSERT INTO {table} ({', '.join(columns)}) VALUES {groups} ON CONFLICT {conflict}"
        self._run(text, [value for row in rows for value in row])

    def _marks(self, count: int) -> str:
        return ", ".join([self._mark] * count)

    def _run(self, text: str, values: Sequence[Any]) -> Any:  # noqa: ANN401 - SQLAlchemy's cursor
        return self._connection.exec_driver_sql(text, tuple(values))


def _stored(at: datetime) -> str:
    """A local time as the tables hold it: in UTC, with microseconds."""
    return at.astimezone(timezone.utc).strftime(_TIME)


def _number(value: float) -> tuple[float | None, str]:
    """A number as the tables hold it, with its kind."""
    if isnan(value):
        return None, "NAN"
    if value in (inf, -inf):
        return None, "INF_POS" if value > 0 else "INF_NEG"
    return value, "FINITE"

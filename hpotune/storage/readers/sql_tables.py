"""Reads trials from the tables of Optuna's relational storage, without Optuna. Writes nothing."""

from __future__ import annotations

import gc
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from math import inf
from typing import Any
from urllib.parse import quote

from hpotune.config.yaml_source import Value
from hpotune.storage.readers.trial_record import ROW_KEYS, TrialRecord

SCHEMA_REVISION = "v3.2.0.a"
"""The revision of Optuna's tables that is read here: since Optuna 3.2; a test holds it to the installed one."""
WAIT_S = 20
"""How long SQLite waits while another process writes."""
Query = Callable[[str], Sequence[tuple[Any, ...]]]
"""The rows that answer one query."""

_TRIALS = (
    "SELECT trial_id, number, state, datetime_start, datetime_complete FROM trials "
    "WHERE study_id = {} ORDER BY number"
)
_PART = "SELECT {} FROM {} x JOIN trials t ON t.trial_id = x.trial_id WHERE t.study_id = {} {}"


class Unreadable(Exception):
    """The storage is not as expected here; Optuna may be able to read it."""


class NoSuchStudy(Unreadable):
    """The storage holds no study of this name, or no studies at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRecord:
    """One study of the storage."""

    trials: Sequence[TrialRecord]
    """By number."""
    forgiven: frozenset[int] = frozenset()
    folder: str | None = None
    """The study's folder, as its user attribute has it."""


def read_sqlite(path: str, name: str) -> StudyRecord:
    """A study from an SQLite file.

    Raises: Unreadable.
    """
    try:
        # rw: a missing file is not created, and a journal that a killed writer left is rolled back
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=WAIT_S)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN")  # all queries see one state
            return _read(lambda query: connection.execute(query).fetchall(), name)
    except sqlite3.Error as error:
        raise Unreadable(str(error)) from error


def read_postgres(url: str, name: str) -> StudyRecord:
    """A study from a PostgreSQL database; psycopg takes the password from PGPASSWORD or ~/.pgpass.

    Raises: Unreadable.
    """
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=5, autocommit=True) as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return _read(lambda query: connection.execute(query.encode()).fetchall(), name)
    except psycopg.Error as error:
        raise Unreadable(str(error)) from error


def _read(ask: Query, name: str) -> StudyRecord:
    text = name.replace("'", "''")
    if list(ask("SELECT version_num FROM alembic_version")) != [(SCHEMA_REVISION,)]:
        raise Unreadable("tables of another version of Optuna")
    found = ask(f"SELECT study_id FROM studies WHERE study_name = '{text}'")
    if len(found) != 1:
        raise NoSuchStudy(f"no study {name!r}")
    study = int(found[0][0])
    own: dict[str, str] = dict(
        (key, value)
        for key, value in ask(
            f"SELECT key, value_json FROM study_user_attributes WHERE study_id = {study} "
            "AND key IN ('forgiven', 'folder')"
        )
    )
    trials = {
        row[0]: TrialRecord(number=row[1], state=row[2], start=unix(row[3]), end=unix(row[4]))
        for row in ask(_TRIALS.format(study))
    }
    for id_, value, kind in ask(
        _part("x.trial_id, value, value_type", "trial_values", study, order="objective")
    ):
        trials[id_].values.append(value if kind == "FINITE" else {"INF_POS": inf, "INF_NEG": -inf}[kind])
    columns = "x.trial_id, param_name, param_value, distribution_json"
    for id_, key, inner, text in ask(_part(columns, "trial_params", study, order="param_id")):
        trials[id_].params[key] = external_value(text, inner)
    keys = ", ".join(f"'{key}'" for key in ROW_KEYS)
    where = f"AND key IN ({keys})"
    found = ask(_part("x.trial_id, key, value_json", "trial_user_attributes", study, where=where))
    parsed = json.loads(
        f"[{','.join([text for _, _, text in found])}]"
    )  # at once: thousands of calls take longer
    for (id_, key, _), value in zip(found, parsed, strict=True):
        trials[id_].attrs[key] = value
    return StudyRecord(
        trials=list(trials.values()),
        forgiven=frozenset(json.loads(own.get("forgiven", "[]"))),
        folder=json.loads(own.get("folder", "null")),
    )


def _part(columns: str, table: str, study: int, *, where: str = "", order: str = "") -> str:
    return _PART.format(columns, table, study, where + (f" ORDER BY {order}" if order else ""))


@contextmanager
def without_collector() -> Iterator[None]:
    """The garbage collector is off: all new objects are needed, and looking for garbage takes half of the time."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.freeze()  # or the first collection goes through all of them
            gc.enable()


def unix(moment: datetime | str | None) -> float | None:
    """Unix seconds of a time in UTC, with or without its zone."""
    if moment is None:
        return None
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    at = at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)
    return at.replace(microsecond=0).timestamp() + at.microsecond / 1e6


def external_value(distribution: str, inner: float) -> Value:
    """The drawn value of a parameter, from Optuna's internal number of it."""
    kind, choices = _distribution(distribution)
    if kind == "CategoricalDistribution":
        chosen: Value = choices[int(inner)]
        return chosen
    return int(inner) if kind == "IntDistribution" else float(inner)


@cache
def _distribution(text: str) -> tuple[str, Sequence[Value]]:
    fields = json.loads(text)
    if fields["name"] not in ("CategoricalDistribution", "IntDistribution", "FloatDistribution"):
        raise Unreadable(f"a distribution of an older Optuna: {fields['name']}")
    return fields["name"], fields["attributes"].get("choices", ())


def kind_of(distribution: str) -> tuple[str, Sequence[Value]]:
    """The kind and the choices of a distribution; equal for compatible distributions of one parameter."""
    return _distribution(distribution)

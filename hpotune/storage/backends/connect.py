"""Choose and open a study's storage: SQLite, PostgreSQL or a journal file, safe for many processes.

A URL never holds a password: libpq takes it from PGPASSWORD or ~/.pgpass.
"""

from __future__ import annotations

import json
import random
import re
import sqlite3
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import Engine, event, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from hpotune.errors import StoreError, StudyFileError
from hpotune.storage.backends import filesystem_probe
from hpotune.storage.backends.journal import journal
from hpotune.storage.backends.postgresql import is_permanent, server_advice, server_reason, server_storage
from hpotune.storage.backends.relational import READS, Tables
from hpotune.storage.backends.store_file import (
    LOCK_WAIT_S,
    damage_message,
    examine_file,
    is_damage,
    other_version,
)
from hpotune.workspace.timeline import log

_UNAVAILABLE = (StorageInternalError, OperationalError, InterfaceError, OSError)
_DAMAGED = (SQLAlchemyError, sqlite3.Error, json.JSONDecodeError, UnicodeDecodeError, RecursionError)
"""What a storage raises whose content cannot be read or written, however long one waits."""
_OTHER_SCHEMA = "compatible with the table schema"
"""In Optuna's error for tables of another version, which is a plain RuntimeError."""
_T = TypeVar("_T")


def choose(store: str, folder: Path) -> tuple[str, str]:
    """The URL that a study's `store:` means in this folder, and why.

    Raises: StudyFileError for a password in the URL, StoreError where no file store would be safe.
    """
    if "://" in store:
        if _password(store) is not None:
            raise StudyFileError(
                "store: holds a password; write postgresql://USER@HOST/DB and put it in PGPASSWORD or ~/.pgpass"
            )
        return _absolute(store, folder), "named in the study file"
    urls = {"sqlite": f"sqlite:///{folder / 'store.db'}", "journal": f"journal:///{folder / 'store.journal'}"}
    if store != "auto":
        return urls[store], "named in the study file"
    found = filesystem_probe.probe(folder)
    if found.choice is None:
        raise StoreError(
            f"{folder}: {found.why}; use PostgreSQL (store: postgresql://USER@HOST/DB) or another folder"
        )
    return urls[found.choice], found.why


def _password(url: str) -> str | None:
    """The password in a URL, before the host or in its query; None where there is none."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise StudyFileError(
            f"store: {url!r} is not a URL ({error}); write postgresql://USER@HOST/DB"
        ) from None
    return parsed.password or cast("str | None", parsed.query.get("password"))


def _absolute(url: str, folder: Path) -> str:
    """A file's URL with an absolute path; after three slashes a path is relative, as in SQLAlchemy."""
    scheme, _, rest = url.partition("://")
    return url if scheme == "postgresql" else f"{scheme}:///{folder / rest.removeprefix('/')}"


def connect(url: str, *, read_only: bool = False, patience_s: float = 0) -> BaseStorage:
    """An Optuna storage for a URL that `choose` gave; its calls are repeated for `patience_s` while it does not answer.

    Creates its file or tables where there are none. Sets Optuna's log level and ignores its warnings of experimental
    features, for the whole process.
    Raises: StoreError when it cannot be reached or opened; so does every later call.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    until, retries, warned = time.monotonic() + patience_s, 20, False
    while True:
        try:
            opened = _opened(url, read_only=read_only)
            return cast(BaseStorage, _RetryingStorage(opened, url, patience_s=patience_s))
        except RuntimeError as error:
            if _OTHER_SCHEMA not in str(error):
                raise
            made_by = re.search(r"set up by optuna ([^)]+)\)", str(error))
            text = other_version(made_by[1] if made_by else "of another version", url, None)
            raise StoreError(f"{url}: {text}") from error
        except (StorageInternalError, OSError, *_DAMAGED) as error:
            concurrent = retries > 0 and _is_concurrent_creation(error)
            retries -= 1
            if not concurrent and (time.monotonic() >= until or _is_final(_cause(error))):
                raise StoreError(_unopened(url, error)) from error
            if not (concurrent or warned):
                log(f"the store does not answer ({_cause(error)}); waiting up to {patience_s:.0f} s for it")
                warned = True
            time.sleep(0.1 if concurrent else random.uniform(0.5, 2))


def _is_concurrent_creation(error: BaseException) -> bool:
    """Whether another process created the tables, or the row with the schema's version, at the same moment."""
    text, cause = str(error), error.__cause__
    found = "already exists" in text or "UNIQUE constraint failed: alembic_version" in text
    return found or (cause is not None and _is_concurrent_creation(cause))


class _RetryingStorage:
    """A storage whose calls are repeated while it does not answer; each of them may be executed twice.

    A row that was appended twice is surplus; a claim whose answer was lost is released by `TrialQueue.requeue_stale`.
    """

    def __init__(self, inner: BaseStorage, url: str, *, patience_s: float) -> None:
        self._inner = inner
        self._url = url
        self._patience_s = patience_s

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inner, name)
        return partial(self._call, found) if callable(found) else found

    def _call(self, call: Callable[..., _T], *args: object, **kwargs: object) -> _T:
        until, pause_s, warned = time.monotonic() + self._patience_s, 0.25, False
        while True:
            try:
                return call(*args, **kwargs)
            except _UNAVAILABLE as error:
                if time.monotonic() >= until or _is_final(_cause(error)):
                    raise store_failure(error, self._url) from error
                if not warned:
                    log(
                        f"the store does not answer ({_cause(error)}); waiting up to {self._patience_s:.0f} s for it"
                    )
                    warned = True
            except _DAMAGED as error:
                raise store_failure(error, self._url) from error
            time.sleep(
                pause_s * random.uniform(0.5, 1)
            )  # clients that a full server refused must not return at once
            pause_s = min(2 * pause_s, 10)


def _opened(url: str, *, read_only: bool) -> BaseStorage:
    if url.startswith("postgresql"):
        return Tables(server_storage(url, read_only=read_only))
    exists = examine_file(url)
    if url.startswith("journal:"):
        return journal(url.removeprefix("journal:///"))
    storage = RDBStorage(
        url,
        engine_kwargs={"connect_args": {"timeout": LOCK_WAIT_S}, "poolclass": NullPool},
        skip_compatibility_check=exists,  # examine_file has compared the versions; Optuna loads all migrations for it
        skip_table_creation=exists,
    )
    if not read_only:
        _serialise(storage.engine)
    return Tables(storage)


def _serialise(engine: Engine) -> None:
    """Open every SQLite transaction that may write with BEGIN IMMEDIATE.

    Python's sqlite3 begins a transaction only before a write: two processes could both read a trial as WAITING and
    both claim it.
    Source: https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
    """

    @event.listens_for(engine, "connect")
    def _no_implicit_begin(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin_immediate(connection: Connection) -> None:
        reads = connection.get_execution_options().get(READS)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _is_final(reason: str) -> bool:
    return is_permanent(reason) or is_damage(reason)


def _cause(error: Exception) -> str:
    origin: BaseException = error
    while inner := getattr(origin, "orig", None) or origin.__cause__:
        origin = inner
    return server_reason(origin)


def _unopened(url: str, error: Exception) -> str:
    reason = _cause(error)
    if url.startswith("postgresql"):
        return f"{url}: cannot be opened ({reason}); {server_advice(reason)}"
    return damage_message(url, reason)


def store_failure(error: Exception, url: str = "") -> StoreError:
    """The error for a storage in use that fails, as one line."""
    reason = _cause(error)
    if not url:
        return StoreError(f"the store gave an error ({reason}); run `hpotune doctor` to check it")
    if url.startswith("postgresql"):
        return StoreError(f"{url}: the store gave an error ({reason}); {server_advice(reason)}")
    return StoreError(damage_message(url, reason))

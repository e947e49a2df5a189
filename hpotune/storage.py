"""Where a study's store lies and how it is opened: SQLite, PostgreSQL or a journal file, each made safe for many processes.

Passwords never stand in a URL: libpq takes them from PGPASSWORD or ~/.pgpass.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy import Engine, event, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from hpotune.errors import StoreError, StudyFileError
from hpotune.filesystem import probe

LOCK_WAIT_S = 120
"""How long SQLite waits for another process's write; 16 workers on a slow disk stay far below."""


def choose(store: str, folder: Path) -> tuple[str, str]:
    """The URL that a study's `store:` means in this folder, and why.

    Raises: StudyFileError for a password in the URL, StoreError where no file store would be safe.
    """
    if "://" in store:
        if make_url(store).password is not None:
            raise StudyFileError(
                "store: holds a password; write postgresql://USER@HOST/DB and put it in PGPASSWORD or ~/.pgpass"
            )
        return _anchored(store, folder), "named in the study file"
    urls = {"sqlite": f"sqlite:///{folder / 'store.db'}", "journal": f"journal://{folder / 'store.journal'}"}
    if store != "auto":
        return urls[store], "named in the study file"
    found = probe(folder)
    if found.choice is None:
        raise StoreError(
            f"{folder}: {found.why}; use PostgreSQL (store: postgresql://USER@HOST/DB) or another folder"
        )
    return urls[found.choice], found.why


def _anchored(url: str, folder: Path) -> str:
    scheme, _, rest = url.partition("://")
    if scheme == "postgresql":
        return url
    path = rest.removeprefix("/") if scheme == "sqlite" else rest
    full = folder / path
    return f"sqlite:///{full}" if scheme == "sqlite" else f"journal://{full}"


def connect(url: str, *, read_only: bool = False) -> BaseStorage:
    """An Optuna storage for a URL that `choose` gave.

    Raises: StoreError when it cannot be reached or opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    try:
        if url.startswith("journal://"):
            path = url.removeprefix("journal://")
            return JournalStorage(JournalFileBackend(path, lock_obj=JournalFileSymlinkLock(path)))
        return get_storage(_relational(url, read_only=read_only))
    except (SQLAlchemyError, OSError) as error:
        raise StoreError(f"{url}: cannot be opened ({_cause(error)}); {_next_step(url)}") from error


def _relational(url: str, *, read_only: bool) -> RDBStorage:
    if url.startswith("postgresql"):
        # A connection a transaction: a worker asks twice an hour, and a server that restarted in between must not break it.
        psycopg = make_url(url).set(drivername="postgresql+psycopg")
        arguments = {"poolclass": NullPool, "connect_args": {"connect_timeout": 10}}
        return RDBStorage(psycopg.render_as_string(hide_password=False), engine_kwargs=arguments)
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": LOCK_WAIT_S}, "poolclass": NullPool})
    if not read_only:
        _serialise(storage.engine)
    return storage


def _serialise(engine: Engine) -> None:
    """Opens every SQLite transaction with BEGIN IMMEDIATE.

    Python's sqlite3 begins a transaction only before a write, so two processes could both read a trial as WAITING and both take it.
    Source: https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
    """

    @event.listens_for(engine, "connect")
    def _no_implicit_begin(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin_immediate(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _cause(error: Exception) -> str:
    origin = getattr(error, "orig", None) or error.__cause__ or error
    lines = [line.strip() for line in str(origin).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _next_step(url: str) -> str:
    if url.startswith("postgresql"):
        return "check host, port, database and PGPASSWORD or ~/.pgpass with `psql`, or use store: auto"
    return "check that the folder exists and is yours to write, or name another store"


def store_failure(error: Exception) -> StoreError:
    """A failure of a storage in use, as one line."""
    return StoreError(f"the store gave an error ({_cause(error)}); is it still there? `hpotune doctor` looks")

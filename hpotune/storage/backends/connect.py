"""Choose and open a study's storage: SQLite, PostgreSQL or a journal file, safe for many processes.

A URL never holds a password: libpq takes it from PGPASSWORD or ~/.pgpass.
"""

from __future__ import annotations

import random
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy import Engine, event, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, Pool

from hpotune.errors import StoreError, StudyFileError
from hpotune.storage.backends.filesystem_probe import probe
from hpotune.storage.backends.journal import journal

LOCK_WAIT_S = 120
"""How long SQLite waits for another process's write; 16 workers on a slow disk stay far below."""
IDLE_S = 0.2
"""How long a connection to a server stays open after a call; the next call often follows within milliseconds."""
PATIENCE_S = 120
"""How long a worker waits for a storage that does not answer: a server's restart, a file system's failover."""
_CREATION_LOCK = int.from_bytes(b"hpotune", "big")
"""The number of the PostgreSQL advisory lock that is held while a study is created."""
_UNAVAILABLE = (StorageInternalError, OperationalError, InterfaceError, OSError)
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
    found = probe(folder)
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

    Raises: StoreError when it cannot be reached or opened; so does every later call.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    until, retries = time.monotonic() + patience_s, 20
    while True:
        try:
            return cast(
                BaseStorage, _RetryingStorage(_opened(url, read_only=read_only), patience_s=patience_s)
            )
        except RuntimeError as error:
            if _OTHER_SCHEMA not in str(error):
                raise
            raise StoreError(f"{url}: {_other_optuna(error, url)}") from error
        except (SQLAlchemyError, StorageInternalError, OSError) as error:
            concurrent = retries > 0 and _is_concurrent_creation(error)
            retries -= 1
            if not concurrent and time.monotonic() >= until:
                raise StoreError(f"{url}: cannot be opened ({_cause(error)}); {_next_step(url)}") from error
            time.sleep(0.1 if concurrent else random.uniform(0.5, 2))


def _other_optuna(error: RuntimeError, url: str) -> str:
    """That the tables are those of another version of Optuna, and the next step."""
    made = re.search(r"set up by optuna ([^)]+)\)", str(error))
    by = f"was made by Optuna {made.group(1)}" if made else "was made by another Optuna"
    optuna_url = url.replace("postgresql://", "postgresql+psycopg://", 1)  # the driver that is installed
    upgrade = f"upgrade it, after a backup: `optuna storage upgrade --storage {optuna_url}`"
    step = upgrade if "storage upgrade" in str(error) else "`pip install -U optuna`"
    return f"{by}, and its tables do not fit the installed {optuna.__version__}; name a new file or database, or {step}"


def _is_concurrent_creation(error: BaseException) -> bool:
    """Whether another process created the tables, or the row with the schema's version, at the same moment."""
    text, cause = str(error), error.__cause__
    found = "already exists" in text or "UNIQUE constraint failed: alembic_version" in text
    return found or (cause is not None and _is_concurrent_creation(cause))


@contextmanager
def creation_lock(url: str) -> Iterator[None]:
    """Keep other processes from creating a study in the same PostgreSQL database until the block ends.

    A transaction holds the lock, so that it also works behind a connection pooler, and ends with the process.
    Raises: StoreError where the database cannot be reached.
    """
    import psycopg

    try:
        connection = psycopg.connect(url, connect_timeout=5)
    except psycopg.Error as error:
        raise StoreError(f"{url}: cannot be opened ({_cause(error)}); {_next_step(url)}") from error
    try:
        with suppress(psycopg.Error):  # after so long its holder hangs: the tables' constraints must suffice
            connection.execute(f"SET LOCAL lock_timeout = '{PATIENCE_S}s'".encode())
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_CREATION_LOCK])
        yield
    finally:
        connection.close()


def require_file(url: str) -> None:
    """Check that a file storage exists, because opening it would create an empty one.

    Raises: StoreError where it does not.
    """
    if not url.startswith("postgresql") and not Path(url.partition(":///")[2]).is_file():
        raise StoreError(f"{url}: does not exist; `hpotune run` or `submit` creates it")


class _RetryingStorage:
    """A storage whose calls are repeated while it does not answer; each of them may be executed twice.

    A row that was appended twice is surplus; a claim whose answer was lost is released by `TrialQueue.requeue_stale`.
    """

    def __init__(self, inner: BaseStorage, *, patience_s: float) -> None:
        self._inner = inner
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
                if time.monotonic() >= until:
                    raise store_failure(error) from error
                if not warned:
                    _log(
                        f"the store does not answer ({_cause(error)}); waiting up to {self._patience_s:.0f} s for it"
                    )
                    warned = True
            time.sleep(
                pause_s * random.uniform(0.5, 1)
            )  # clients that a full server refused must not return at once
            pause_s = min(2 * pause_s, 10)


class _ShortLivedPool(Pool):
    """Keeps one connection from call to call and closes it when it has been idle for IDLE_S.

    Recording a trial takes some thirty calls in a row, and a connection with a password costs more than a query. But
    hundreds of workers must not hold connections while they train.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as Pool
        super().__init__(*arguments, **options)
        self._idle: ConnectionPoolEntry | None = None
        self._since = 0.0
        self._watched = False
        self._lock = threading.Lock()

    def _do_get(self) -> ConnectionPoolEntry:
        with self._lock:
            found, self._idle = self._idle, None
        return found or self._create_connection()

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        with self._lock:
            keep = self._idle is None
            if keep:
                self._idle, self._since = record, time.monotonic()
                if not self._watched:
                    self._watched = True
                    threading.Thread(target=self._watch, daemon=True).start()
        if not keep:
            record.close()

    def _watch(self) -> None:
        """Close the kept connection when it has been idle for IDLE_S; ends when there is none."""
        while True:
            time.sleep(IDLE_S)
            with self._lock:
                if self._idle is not None and time.monotonic() - self._since < IDLE_S:
                    continue
                found, self._idle, self._watched = self._idle, None, False
            if found is not None:
                found.close()
            return

    def recreate(self) -> _ShortLivedPool:
        """A new pool with the same settings."""
        return self.__class__(
            self._creator, recycle=self._recycle, echo=self.echo, pre_ping=self._pre_ping,
            reset_on_return=self._reset_on_return, _dispatch=self.dispatch, dialect=self._dialect,
        )  # fmt: skip

    def dispose(self) -> None:
        """Close the idle connection."""
        with self._lock:
            found, self._idle = self._idle, None
        if found is not None:
            found.close()


def _log(text: str) -> None:
    with suppress(OSError):  # a full disk costs a line of the log, not the worker
        print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}", file=sys.stderr, flush=True)  # noqa: T201 - a job's log


def _opened(url: str, *, read_only: bool) -> BaseStorage:
    if url.startswith("journal:"):
        return journal(url.removeprefix("journal:///"))
    return get_storage(_relational(url, read_only=read_only))


def _relational(url: str, *, read_only: bool) -> RDBStorage:
    if url.startswith("postgresql"):
        psycopg = make_url(url).set(drivername="postgresql+psycopg")
        arguments = {
            "poolclass": _ShortLivedPool,
            "pool_pre_ping": True,
            "connect_args": {"connect_timeout": 5},
        }
        return RDBStorage(psycopg.render_as_string(hide_password=False), engine_kwargs=arguments)
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": LOCK_WAIT_S}, "poolclass": NullPool})
    if not read_only:
        _serialise(storage.engine)
    return storage


def _serialise(engine: Engine) -> None:
    """Open every SQLite transaction with BEGIN IMMEDIATE.

    Python's sqlite3 begins a transaction only before a write: two processes could both read a trial as WAITING and
    both claim it.
    Source: https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
    """

    @event.listens_for(engine, "connect")
    def _no_implicit_begin(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin_immediate(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _cause(error: Exception) -> str:
    origin: BaseException = error
    while inner := getattr(origin, "orig", None) or origin.__cause__:
        origin = inner
    lines = [line.strip() for line in str(origin).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _next_step(url: str) -> str:
    if url.startswith("postgresql"):
        return "check host, port, database and PGPASSWORD or ~/.pgpass with `psql`, or use store: auto"
    return "check that the folder exists and is writable, or name another store"


def store_failure(error: Exception) -> StoreError:
    """The error for a storage in use that fails, as one line."""
    return StoreError(f"the store gave an error ({_cause(error)}); run `hpotune doctor` to check it")

"""PostgreSQL as a store: its connections, its rights, and the lock under which studies are created in it.

A password is never in the URL: libpq takes it from PGPASSWORD or ~/.pgpass; TLS by sslmode and sslrootcert.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from optuna.storages import RDBStorage
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, Pool

from hpotune.errors import StoreError
from hpotune.storage.backends.store_file import examine_tables

IDLE_S = 0.2
"""How long a connection to a server stays open after a call; the next call often follows within milliseconds."""
CONNECT_S = 5
_CONNECT = {"connect_timeout": CONNECT_S, "prepare_threshold": None}
"""For psycopg. A prepared statement belongs to one connection of the server, which a pooler of transactions swaps."""
PATIENCE_S = 120
"""How long a worker waits for a storage that does not answer: a server's restart, a file system's failover."""
_CREATION_LOCK = int.from_bytes(b"hpotune", "big")
"""The number of the PostgreSQL advisory lock that is held while a study is created."""
_PERMANENT = re.compile(
    "password authentication failed|no password supplied|does not exist|no pg_hba.conf entry|certificate verify failed|"
    "permission denied|does not support SSL|does not match host name|is not permitted to log in|invalid \\S+ value|"
    "invalid .*option|private key file"
)
_FULL = re.compile(
    "too many clients|remaining connection slots|too many connections|no more connections allowed"
)


def server_storage(url: str, *, read_only: bool) -> RDBStorage:
    """Optuna's storage on a server; its tables are created where there are none.

    Raises: StoreError for tables of something else or of another Optuna, and for missing rights; SQLAlchemyError where
    the server does not answer.
    """
    psycopg_url = make_url(url).set(drivername="postgresql+psycopg")
    exists = _examine(url, psycopg_url.render_as_string(hide_password=False), read_only=read_only)
    arguments = {
        "poolclass": _ShortLivedPool,
        "pool_pre_ping": True,
        "connect_args": _CONNECT,
    }
    return RDBStorage(
        psycopg_url.render_as_string(hide_password=False),
        engine_kwargs=arguments,
        skip_table_creation=exists,
    )


def _examine(url: str, psycopg_url: str, *, read_only: bool) -> bool:
    """Whether Optuna's tables are there."""
    engine = create_engine(psycopg_url, poolclass=NullPool, connect_args=_CONNECT)
    with engine.connect() as connection:

        def ask(query: str) -> Sequence[tuple[Any, ...]]:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

        user, schema, may_create = ask(
            "SELECT current_user, current_schema(), has_schema_privilege(current_schema(), 'CREATE')"
        )[0]
        if schema is None:
            path = ask("SHOW search_path")[0][0]
            raise StoreError(
                f"{url}: the database has no schema of its search_path ({path}); create it: `CREATE SCHEMA NAME "
                f"AUTHORIZATION {user}`"
            )
        tables = {name for (name,) in ask(_TABLES)}
        columns = {name for (name,) in ask(_COLUMNS)}
        exists = examine_tables(ask, url=url, tables=tables, study_columns=columns)
        if not exists and not may_create:
            raise StoreError(
                f"{url}: the user {user} may not create tables in the schema {schema}; let its owner run "
                f"`GRANT CREATE ON SCHEMA {schema} TO {user}`, or name a schema of your own "
                "(?options=-csearch_path%3DNAME)"
            )
        if exists and not read_only and not ask(_MAY_WRITE)[0][0]:
            raise StoreError(
                f"{url}: the user {user} may not write the tables in the schema {schema}; let their owner run "
                f"`GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {user}` and the same of ALL SEQUENCES"
            )
        return exists


_TABLES = (
    "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND pg_table_is_visible(oid) AND relnamespace NOT IN "
    "(SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema'))"
)
_COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass('studies') AND attnum > 0"
_MAY_WRITE = "SELECT has_table_privilege('trials', 'INSERT') AND has_table_privilege('trials', 'UPDATE')"


def is_permanent(reason: str) -> bool:
    """Whether waiting does not help against this error: a wrong password, no such database, a wrong certificate."""
    return _PERMANENT.search(reason) is not None


def server_advice(reason: str) -> str:
    """The next step after an error of a server."""
    if _FULL.search(reason):
        return (
            "all connections of the server are in use: raise max_connections, use a connection pooler such as "
            "PgBouncer, or lower budget.parallel"
        )
    if re.search("certificate|SSL|sslmode", reason):
        return "check sslmode and sslrootcert in the URL (or PGSSLMODE, PGSSLROOTCERT) with `psql`"
    return "check host, port, database and PGPASSWORD or ~/.pgpass with `psql`, or use store: auto"


def server_reason(error: BaseException) -> str:
    """An error of libpq or of the server in one line; of several addresses of a host, what each of them gave."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if "Multiple connection attempts failed" not in lines[0]:
        return lines[0]
    return "; ".join(dict.fromkeys(line.lstrip("- ") for line in lines[1:]))


@contextmanager
def creation_lock(url: str) -> Iterator[None]:
    """Keep other processes from creating a study in the same PostgreSQL database until the block ends.

    A transaction holds the lock, so that it also works behind a connection pooler, and ends with the process.
    Raises: StoreError where the database cannot be reached.
    """
    import psycopg

    try:
        connection = psycopg.connect(url, connect_timeout=CONNECT_S, prepare_threshold=None)
    except psycopg.Error as error:
        reason = server_reason(error)
        raise StoreError(f"{url}: cannot be opened ({reason}); {server_advice(reason)}") from error
    try:
        with suppress(psycopg.Error):  # after so long its holder hangs: the tables' constraints must suffice
            connection.execute(f"SET LOCAL lock_timeout = '{PATIENCE_S}s'".encode())
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_CREATION_LOCK])
        yield
    finally:
        connection.close()


class _ShortLivedPool(Pool):
    """Keeps one connection from call to call and closes it when it has been idle for IDLE_S.

    Recording a trial takes some thirty calls in a row, and a connection with a password costs more than a query. But
    hundreds of workers must not hold connections while they train. A thread closes the idle one, and ends with it.
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

"""What lies at a store's URL: nothing yet, a store of this Optuna, or something else, which is refused. Writes nothing.

Optuna itself creates its tables in any database, also in one of an older version, whose upgrade then fails, and appends
to any file. So a store is looked at before Optuna opens it.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna

from hpotune.errors import StoreError
from hpotune.storage.backends.journal import is_record_start
from hpotune.storage.readers.sql_tables import SCHEMA_REVISION

LOCK_WAIT_S = 120
"""How long SQLite waits for another process's write; 16 workers on a slow disk stay far below."""
_SQLITE_HEADER = b"SQLite format 3\0"
_STUDY_COLUMNS = {"study_id", "study_name"}
_TRANSIENT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.ENOTCONN)
"""Of a file system that may answer later: a server's failover, a mount that is made again."""
_DAMAGE = re.compile("malformed|not a database|encrypted|corrupt")
_START_OVER = "put it back, or remove the study's folder to start over"
Ask = Callable[[str], Sequence[tuple[Any, ...]]]
"""The rows that answer one query."""


def file_of(url: str) -> Path | None:
    """The file of an SQLite or journal store; None for a server."""
    return None if url.startswith("postgresql") else Path(url.partition(":///")[2])


def is_missing(url: str) -> bool:
    """Whether the store's file does not exist or is empty, so that it holds no trial; False for a server."""
    file = file_of(url)
    try:
        return file is not None and file.stat().st_size == 0
    except FileNotFoundError:
        return True
    except OSError:
        return False


def require_file(url: str) -> None:
    """Check that a file store exists and is not empty, because opening it would create an empty one.

    Raises: StoreError where it does not.
    """
    if is_missing(url):
        what = "is empty" if os.path.exists(url.partition(":///")[2]) else "is missing"
        raise StoreError(f"{url}: the study's store {what}; {_START_OVER}")


def examine_file(url: str) -> bool:
    """Whether the URL's file holds a complete store; False where one is to be created: no file, or an empty one.

    Raises: StoreError where it holds anything else, or may not be read; OSError and sqlite3.OperationalError where its
    disk does not answer now.
    """
    file = file_of(url)
    assert file is not None, "a server has no file"
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
            raise StoreError(f"{url}: is {what}; a store is a file: name another one (store:)")
        with file.open("rb") as content:
            start = content.read(4096)
    except FileNotFoundError:
        if file.is_symlink():
            raise StoreError(
                f"{url}: is a symbolic link to a file that does not exist; {_START_OVER}"
            ) from None
        return False
    except OSError as error:
        if error.errno in _TRANSIENT:
            raise
        raise StoreError(
            f"{url}: cannot be opened ({error.strerror}); check that the folder exists and that you may read and write "
            "the file, or name another store"
        ) from error
    if not start:
        return False
    if url.startswith("sqlite:"):
        return _examine_sqlite(url, file, start)
    if not is_record_start(start):
        raise StoreError(
            f"{url}: is no journal of Optuna (it starts with {_shown(start)}) and is left as it is; name another file"
        )
    return True


def _examine_sqlite(url: str, file: Path, start: bytes) -> bool:
    if not start.startswith(_SQLITE_HEADER):
        raise StoreError(
            f"{url}: is no SQLite database (it starts with {_shown(start)}) and is left as it is; restore it, or name "
            "another file"
        )
    try:
        # rw: a missing file is not created, and what a killed writer left is rolled back
        with closing(
            sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=LOCK_WAIT_S)
        ) as db:
            tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

            def ask(query: str) -> Sequence[tuple[Any, ...]]:
                return db.execute(query).fetchall()

            columns = {row[1] for row in ask("PRAGMA table_info(studies)")}
            return examine_tables(ask, url=url, tables=tables, study_columns=columns)
    except sqlite3.OperationalError:  # no access now: the caller waits for it
        raise
    except sqlite3.Error as error:
        raise StoreError(damage_message(url, str(error))) from error


def examine_tables(ask: Ask, *, url: str, tables: Iterable[str], study_columns: set[str]) -> bool:
    """Whether the database holds Optuna's tables; `tables`: the names that it holds, `study_columns`: of `studies`.

    Raises: StoreError for tables of something else, or of another version of Optuna.
    """
    found = set(tables)
    if study_columns and not study_columns >= _STUDY_COLUMNS:
        raise StoreError(_foreign(url, found))
    if not study_columns and url.startswith("sqlite:") and found - _optuna_tables():
        raise StoreError(_foreign(url, found))
    if "version_info" not in found:
        return False
    made_by = ask("SELECT library_version FROM version_info")
    revisions = ask("SELECT version_num FROM alembic_version") if "alembic_version" in found else []
    if revisions and revisions[0][0] == SCHEMA_REVISION:
        return True
    if made_by and (revisions or made_by[0][0] != optuna.__version__):
        raise StoreError(f"{url}: {other_version(str(made_by[0][0]), url, _revision(revisions))}")
    return False  # another process creates the tables at this moment


def _revision(rows: Sequence[tuple[Any, ...]]) -> str | None:
    return str(rows[0][0]) if rows else None


def _optuna_tables() -> set[str]:
    from optuna.storages._rdb.models import BaseModel

    return {*BaseModel.metadata.tables, "alembic_version", "sqlite_sequence"}


def _foreign(url: str, tables: set[str]) -> str:
    names = sorted(tables)
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return (
        f"{url}: is a database of something else (tables: {shown}) and is left as it is; name another file or "
        "database"
    )


def other_version(made_by: str, url: str, revision: str | None) -> str:
    """That the tables are those of another version of Optuna, and the next step. `revision`: of the tables' schema."""
    by = f"was made by Optuna {made_by}, and its tables do not fit the installed {optuna.__version__}"
    optuna_url = url.replace("postgresql://", "postgresql+psycopg://", 1)  # the driver that is installed
    if revision is None or revision in _known_revisions():
        step = f"upgrade it, after a backup: `optuna storage upgrade --storage {optuna_url}`"
    else:
        step = "`pip install -U optuna`"
    return f"{by}; name a new file or database, or {step}"


def _known_revisions() -> set[str]:
    """Schema revisions that the installed Optuna can upgrade: its migration scripts."""
    from optuna.storages import _rdb

    scripts = Path(next(iter(_rdb.__path__)), "alembic", "versions").glob("*.py")
    return {found[1] for script in scripts if (found := re.match(r"(v[\w.]*?[a-z])_?\.py$", script.name))}


def is_damage(reason: str) -> bool:
    """Whether SQLite's error says that the file itself is damaged, which no waiting mends."""
    return _DAMAGE.search(reason) is not None


def damage_message(url: str, reason: str) -> str:
    """One line about a store that cannot be read, and the next step."""
    if is_damage(reason):
        file = file_of(url)
        return (
            f"{url}: is damaged ({reason}); restore it from a backup, or save what can be read: "
            f"`sqlite3 {file} .recover | sqlite3 NEW.db`"
        )
    if "locked" in reason or "busy" in reason:
        return f"{url}: is locked by another process ({reason}); end that process, or try again"
    return f"{url}: cannot be opened ({reason}); check that the folder exists and is writable, or name another store"


def _shown(start: bytes) -> str:
    """The beginning of a file, for a message."""
    return ascii(start[:20].decode(errors="replace"))

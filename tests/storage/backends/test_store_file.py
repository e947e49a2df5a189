"""A store's file is created or recognised, never overwritten; a store of another Optuna is never changed."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.storages._rdb.storage import _VersionManager
from optuna.study import StudyDirection

from hpotune.errors import StoreError
from hpotune.storage.backends.connect import connect
from hpotune.storage.backends.store_file import _known_revisions
from hpotune.storage.readers.sql_tables import SCHEMA_REVISION, Unreadable, read_sqlite

MINIMIZE = [StudyDirection.MINIMIZE]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def executed(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


def test_read_revision_is_the_installed_one(path):
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    manager = _VersionManager(storage.url, storage.engine, storage.scoped_session)
    assert manager.get_head_version() == SCHEMA_REVISION
    assert _known_revisions() == set(manager.get_all_versions())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"my thesis",
            r"is no SQLite database .it starts with 'my thesis'.*restore it, or name another file",
        ),
        (b"\0" * 5000, "is no SQLite database"),
        (b"\xff\xfe\xfd", "is no SQLite database"),
        (b"SQLite format 3\0" + b"\xff" * 5000, r"is damaged|cannot be opened"),
    ],
)
def test_foreign_file_is_left_alone(path, content, reason):
    path.write_bytes(content)
    with pytest.raises(StoreError, match=reason):
        connect(f"sqlite:///{path}")
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["store.db"]


@pytest.mark.parametrize(
    "table",
    [
        "recipes (name TEXT)",
        "studies (name TEXT)",
        "trials2 (n INTEGER)",
    ],
)
def test_database_of_something_else(path, table):
    executed(path, f"CREATE TABLE {table}")
    before = path.read_bytes()
    with pytest.raises(
        StoreError, match=r"is a database of something else .tables: .*name another file or database"
    ):
        connect(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_other_studies_may_lie_beside(path):
    optuna.create_study(storage=f"sqlite:///{path}", study_name="theirs")
    executed(path, "CREATE TABLE notes (text TEXT)")
    storage = connect(f"sqlite:///{path}")
    storage.create_new_study(MINIMIZE, "ours")
    assert [study.study_name for study in storage.get_all_studies()] == ["theirs", "ours"]


@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
def test_empty_file_becomes_a_store(path, scheme):
    path.touch()
    connect(f"{scheme}:///{path}").create_new_study(MINIMIZE, "ours")
    assert [study.study_name for study in connect(f"{scheme}:///{path}").get_all_studies()] == ["ours"]


@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nothing", "link to itself"])
def test_path_that_is_no_file(path, kind, scheme):
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("store.db" if kind == "link to itself" else "nowhere")
    with pytest.raises(
        StoreError, match=r"is a folder|is no regular file|is a symbolic link|Too many levels"
    ) as error:
        connect(f"{scheme}:///{path}")
    assert "\n" not in str(error.value)
    assert os.listdir(path.parent) == ["store.db"]


def test_damaged_database_says_so(path):
    storage = connect(f"sqlite:///{path}")
    for number in range(40):
        storage.create_new_study(MINIMIZE, f"s{number}")
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xee" * (len(content) - 8192))
    with pytest.raises(
        StoreError, match=r"is damaged \(.*restore it from a backup, or save what can be read: `sqlite3"
    ):
        connect(f"sqlite:///{path}").get_all_studies()


# What Optuna 2.6.0 makes (pip install optuna==2.6.0; create_study; sqlite3 .schema), but for constraints.
OLD_TABLES = (
    "CREATE TABLE studies (study_id INTEGER NOT NULL, study_name VARCHAR(512) NOT NULL, PRIMARY KEY (study_id))",
    "CREATE TABLE study_directions (study_direction_id INTEGER NOT NULL, direction VARCHAR(8) NOT NULL, "
    "study_id INTEGER, objective INTEGER NOT NULL, PRIMARY KEY (study_direction_id))",
    "CREATE TABLE trials (trial_id INTEGER NOT NULL, number INTEGER, study_id INTEGER, state VARCHAR(8) "
    "NOT NULL, datetime_start DATETIME, datetime_complete DATETIME, PRIMARY KEY (trial_id))",
    "CREATE TABLE version_info (version_info_id INTEGER NOT NULL, schema_version INTEGER, "
    "library_version VARCHAR(256), PRIMARY KEY (version_info_id))",
    "INSERT INTO studies VALUES (1, 'bowl')",
)
ALEMBIC = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"


@pytest.mark.parametrize(
    ("made_by", "revision", "step"),
    [
        ("2.6.0", "v2.6.0.a", "upgrade it, after a backup: `optuna storage upgrade --storage"),
        ("0.9.0", None, "upgrade it, after a backup: `optuna storage upgrade --storage"),
        ("9.0.0", "v9.0.0.a", "`pip install -U optuna`"),
    ],
)
def test_other_optuna_is_never_upgraded(path, made_by, revision, step):
    executed(path, *OLD_TABLES, f"INSERT INTO version_info VALUES (1, 12, '{made_by}')")
    if revision:
        executed(path, ALEMBIC, f"INSERT INTO alembic_version VALUES ('{revision}')")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"was made by Optuna {made_by}, .*{re.escape(step)}"):
        connect(f"sqlite:///{path}")
    with pytest.raises(Unreadable):
        read_sqlite(str(path), "bowl")
    assert path.read_bytes() == before

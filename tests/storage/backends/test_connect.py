"""Which store a folder gets, what a URL may say, and what happens while the storage is away."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from hpotune.errors import StoreError, StudyFileError
from hpotune.records.trial import TrialResult
from hpotune.storage import TrialQueue
from hpotune.storage.backends import filesystem_probe
from hpotune.storage.backends.connect import choose, connect
from tests.fixtures.store_workers import worker


def test_auto_is_sqlite_on_local_disks(tmp_path):
    url, why = choose("auto", tmp_path / "study")
    assert url == f"sqlite:///{tmp_path}/study/store.db"
    assert "4 processes x 25 locked writes" in why


@pytest.mark.parametrize(
    ("revision", "step"),
    [
        (
            "v2.6.0.a",
            "name a new file or database, or upgrade it, after a backup: `optuna storage upgrade --storage {url}`",
        ),
        ("v99.0.0.a", "name a new file or database, or `pip install -U optuna`"),
    ],
)
def test_other_optunas_tables_are_refused(tmp_path, revision, step):
    url = f"sqlite:///{tmp_path}/store.db"
    connect(url)
    with closing(sqlite3.connect(tmp_path / "store.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", [revision])
        database.execute("UPDATE version_info SET library_version = '2.6.0'")
    with pytest.raises(StoreError) as error:
        connect(url)
    assert f"{url}: was made by Optuna 2.6.0, and its tables do not fit the installed" in str(error.value)
    assert str(error.value).endswith(step.format(url=url))


def test_auto_is_journal_on_nfs(tmp_path, monkeypatch):
    monkeypatch.setattr(filesystem_probe, "mount_type", lambda folder: "nfs4")
    url, why = choose("auto", tmp_path / "study")
    assert url == f"journal:///{tmp_path}/study/store.journal"
    assert why.startswith("nfs4:")


def test_auto_is_journal_on_unknown_types(tmp_path, monkeypatch):
    monkeypatch.setattr(filesystem_probe, "mount_type", lambda folder: "fuse.mystery")
    url, why = choose("auto", tmp_path / "study")
    assert url.startswith("journal:")
    assert "fuse.mystery is not known as a local one" in why


LOSSY = filesystem_probe._RACER.replace('try: os.symlink("x", path + ".lock"); break', "break").replace(
    'os.unlink(path + ".lock")', "pass"
)


def test_broken_lock_is_detected(tmp_path, monkeypatch):
    monkeypatch.setattr(filesystem_probe, "mount_type", lambda folder: "nfs")
    monkeypatch.setattr(filesystem_probe, "_RACER", LOSSY)
    monkeypatch.setattr(filesystem_probe, "WRITES", 200)
    with pytest.raises(StoreError, match=r"journal locks do not hold on this file system .nfs.*PostgreSQL"):
        choose("auto", tmp_path)


def test_missing_locks_are_detected(tmp_path, monkeypatch):
    monkeypatch.setattr(filesystem_probe, "mount_type", lambda folder: "ext4")
    refusing = "import sys; sys.exit('sqlite3.OperationalError: disk I/O error')"
    monkeypatch.setattr(filesystem_probe, "_RACER", refusing)
    with pytest.raises(StoreError, match=r"sqlite locks do not hold.*disk I/O error"):
        choose("auto", tmp_path)


def test_probe_leaves_no_files(tmp_path):
    filesystem_probe.probe(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_deepest_mount_gives_the_type():
    assert filesystem_probe.mount_type(Path("/proc/self")) == "proc"


@pytest.mark.parametrize(
    ("store", "url"),
    [
        ("sqlite", "sqlite:////s/store.db"),
        ("journal", "journal:////s/store.journal"),
        ("sqlite:///mine.db", "sqlite:////s/mine.db"),
        ("sqlite:////else/mine.db", "sqlite:////else/mine.db"),
        ("journal:///mine.log", "journal:////s/mine.log"),
        ("journal:////else/mine.log", "journal:////else/mine.log"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
    ],
)
def test_relative_url_is_in_study_folder(store, url):
    assert choose(store, Path("/s")) == (url, "named in the study file")


@pytest.mark.parametrize("url", ["postgresql://me:secret@host/db", "postgresql://me@host/db?password=secret"])
def test_password_in_url_is_refused(url):
    with pytest.raises(StudyFileError, match=r"PGPASSWORD or ~/.pgpass") as caught:
        choose(url, Path("/s"))
    assert "secret" not in str(caught.value)


def test_invalid_url_is_refused():
    with pytest.raises(StudyFileError, match=r"is not a URL"):
        choose("postgresql://me@host:port/db", Path("/s"))


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_stale_file_is_waited_for(tmp_path, monkeypatch, number):
    """A file server fails over while a worker opens its store."""
    url = f"sqlite:///{tmp_path}/s.db"
    connect(url)
    opened, failed = Path.open, []

    def once(self, *arguments, **options):
        if self.name == "s.db" and not failed:
            failed.append(self)
            raise OSError(number, os.strerror(number), str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", once)
    with pytest.raises(StoreError, match=os.strerror(number)):
        connect(url)
    failed.clear()
    connect(url, patience_s=60)
    assert failed


def test_disk_error_is_waited_for(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/s.db"
    connect(url)
    opened, failed = sqlite3.connect, []

    def once(*arguments, **options):
        if not failed:
            failed.append(arguments)
            raise sqlite3.OperationalError("disk I/O error")
        return opened(*arguments, **options)

    monkeypatch.setattr("hpotune.storage.backends.store_file.sqlite3.connect", once)
    connect(url, patience_s=60)
    assert failed


def test_damage_is_not_waited_for(tmp_path):
    """It is found by the first query: the process would wait for minutes else."""
    storage = connect(f"sqlite:///{tmp_path}/s.db", patience_s=3600)
    content = (tmp_path / "s.db").read_bytes()
    (tmp_path / "s.db").write_bytes(b"SQLite format 3\0" + b"\xff" * (len(content) - 16))
    with pytest.raises(StoreError, match="is damaged"):
        storage.get_all_studies()


def test_missing_folder_is_one_line(tmp_path):
    with pytest.raises(StoreError, match=r"unable to open database file.*check that the folder exists"):
        connect(f"sqlite:///{tmp_path}/nowhere/s.db")


def test_unreachable_server_fails_in_seconds():
    start = time.monotonic()
    with pytest.raises(StoreError, match=r"cannot be opened .*PGPASSWORD"):
        connect("postgresql://me@127.0.0.1:9/db")
    assert time.monotonic() - start < 10


@pytest.mark.postgres
def test_server_prepares_no_statements(postgres, make_study):
    """A pooler of transactions gives each transaction another connection, which has none of them."""
    store = TrialQueue.create(postgres, make_study(), folder="f")
    for _ in range(12):
        store.rows()
    engine = store._storage._inner._backend.engine
    with engine.connect() as connection:
        for _ in range(12):
            connection.exec_driver_sql("SELECT 1 + 1")
        found = connection.exec_driver_sql("SELECT statement FROM pg_prepared_statements").fetchall()
    assert found == []


@pytest.mark.postgres
def test_password_comes_from_pgpassword(postgres):
    connect(postgres)


@pytest.mark.postgres
def test_password_comes_from_pgpass(postgres, server, monkeypatch, tmp_path):
    monkeypatch.delenv("PGPASSWORD")
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"127.0.0.1:{server.port}:*:hpotune:{server.password}\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    connect(postgres)


@pytest.mark.postgres
def test_server_refuses_missing_password(postgres, monkeypatch):
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    with pytest.raises(StoreError, match="password"):
        connect(postgres)


@pytest.mark.postgres
def test_wrong_password_is_not_printed(postgres, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "wrong-secret")
    with pytest.raises(StoreError, match=r"password authentication failed") as caught:
        connect(postgres)
    assert "wrong-secret" not in str(caught.value)


@pytest.mark.postgres
def test_tables_are_created_concurrently(postgres):
    code = "import sys; from hpotune.storage.backends.connect import connect; connect(sys.argv[1])"
    racers = [
        subprocess.Popen([sys.executable, "-c", code, postgres], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [racer.communicate(timeout=120)[1] for racer in racers] == [""] * 4


@pytest.mark.postgres
def test_result_survives_server_restart(postgres, server, make_study):
    store = TrialQueue.create(postgres, make_study(), folder="f")
    patient = TrialQueue.open(postgres, make_study(), patient=True)
    claim = patient.claim(worker())
    server.stop()
    threading.Timer(3, server.start).start()
    patient.complete(claim.trial_id, TrialResult(number=claim.row.number, state="finished", values=[0.5]))
    assert store.rows()[0].values == (0.5,)


@pytest.mark.postgres
def test_reader_fails_at_once_without_server(postgres, server, make_study):
    store = TrialQueue.create(postgres, make_study(), folder="f")
    server.stop()
    try:
        with pytest.raises(StoreError, match=r"the store gave an error .connection.*check host, port"):
            store.rows()
    finally:
        server.start()

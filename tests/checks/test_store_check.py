"""A store that the study file names: refused on a network file system and where it is no store; its earlier trials."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpotune.checks.study_file import check
from hpotune.cli import app
from hpotune.errors import StoreError, StudyFileError
from hpotune.launch.prepare import prepare
from hpotune.storage import TrialQueue
from hpotune.storage.backends import filesystem_probe
from hpotune.storage.readers import read_only
from hpotune.storage.readers.read_only import earlier_trials
from hpotune.storage.readers.sql_tables import Unreadable
from tests.fixtures.store_workers import finish, worker


@pytest.fixture(params=["sqlite", "journal", pytest.param("postgresql", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store outside the study's folder."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres")
    return f"{request.param}:///{tmp_path}/shared.store"


def prepared(file: Path, **options):
    return prepare(file, chosen=None, data_root=None, **options)


def run_two_trials(file: Path) -> Path:
    """Two trials of the study finish; then its folder is removed. Returns the folder."""
    made = prepared(file)
    for _ in range(3):  # the baseline first
        finish(made.store, made.store.claim(worker()))
    shutil.rmtree(made.folder.path)
    return made.folder.path


def test_earlier_trials_are_refused(make_study, store):
    file = make_study(store=store).source.path
    folder = run_two_trials(file)
    with pytest.raises(
        StoreError, match=r"holds 3 finished trials of a study 'bowl' from 20.*--adopt.*delete-study"
    ):
        prepared(file)
    assert not folder.exists()
    (warning,) = check(file).warnings
    assert "holds 3 finished trials of a study 'bowl'" in warning


def test_earlier_trials_are_adopted(make_study, store):
    file = make_study(store=store).source.path
    run_two_trials(file)
    made = prepared(file, adopt=True)
    assert [row.state for row in made.store.rows()].count("finished") == 3
    assert prepared(file).folder.path == made.folder.path


def test_trials_of_lost_folder_are_adopted(make_study, store, tmp_path):
    file = make_study(store=store).source.path
    run_two_trials(file)
    made = prepare(file, chosen=tmp_path / "elsewhere", data_root=None, adopt=True)
    assert [row.state for row in made.store.rows()].count("finished") == 3


def test_trials_of_another_folder_stay(make_study, store, tmp_path):
    file = make_study(store=store).source.path
    prepared(file)
    with pytest.raises(StoreError, match="holds another study named 'bowl'"):
        prepare(file, chosen=tmp_path / "elsewhere", data_root=None, adopt=True)


def test_unreadable_store_is_not_empty(make_study, store, monkeypatch):
    """Trials that hpotune's own reader cannot read count; a store that nothing can read is an error."""
    file = make_study(store=store).source.path
    run_two_trials(file)

    def damaged(*_: object) -> None:
        raise Unreadable("a newer version")

    monkeypatch.setattr(read_only, "_read", damaged)
    with pytest.raises(StoreError, match=r"holds 3 finished trials of a study 'bowl'"):
        prepared(file)
    assert earlier_trials(store, "another") is None


@pytest.mark.postgres
def test_silent_server_is_no_empty_store(make_study, postgres, server):
    """`check` warns, since jobs may reach it; `run` and `submit` stop."""
    url = postgres.replace(f":{server.port}/", ":1/")
    file = make_study(store=url).source.path
    with pytest.raises(StoreError, match=r"cannot be opened \(.*refused"):
        prepared(file)
    assert any("earlier trials are not known" in text for text in check(file).warnings)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_absent_store_has_no_trials(tmp_path, kind):
    assert earlier_trials(f"{kind}:///{tmp_path}/none", "bowl") is None
    (tmp_path / "none").touch()
    assert earlier_trials(f"{kind}:///{tmp_path}/none", "bowl") is None
    assert (tmp_path / "none").stat().st_size == 0


def test_waiting_trials_are_no_earlier_ones(make_study, store):
    """A preparation that was interrupted is continued."""
    file = make_study(store=store).source.path
    shutil.rmtree(prepared(file).folder.path)
    assert prepared(file).folder.path.is_dir()


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("nfs4", "sqlite"),
        ("lustre", "sqlite:///mine.db"),
        ("fuse.sshfs", "sqlite:////{tmp_path}/mine.db"),
        ("cifs", "sqlite"),
        ("gpfs", "sqlite"),
        ("fuse.ceph-fuse", "sqlite"),
    ],
)
def test_sqlite_on_network_is_refused(make_study, tmp_path, monkeypatch, kind, named):
    monkeypatch.setattr(filesystem_probe, "mount_type", lambda _: kind)
    file = make_study(store=named.format(tmp_path=tmp_path)).source.path
    for verb in (check, prepared):
        with pytest.raises(
            StudyFileError, match=rf"study.yaml:\d+: SQLite loses or doubles .* is on {kind}; write"
        ):
            verb(file)


def test_sqlite_on_network_is_allowed(make_study, monkeypatch):
    monkeypatch.setattr(filesystem_probe, "mount_type", lambda _: "nfs4")
    assert prepared(make_study(store="sqlite", sqlite_on_network=True).source.path).store.rows()


@pytest.mark.parametrize("kind", ["ext4", "overlay", "unknown", "fuse.mystery"])
def test_sqlite_elsewhere_is_allowed(make_study, monkeypatch, kind):
    monkeypatch.setattr(filesystem_probe, "mount_type", lambda _: kind)
    assert prepared(make_study(store="sqlite").source.path).store.rows()


def test_worker_refuses_moved_sqlite(make_study, monkeypatch):
    """The study was made on a local disk, and its folder was moved to a network file system."""
    made = prepared(make_study(store="sqlite").source.path)
    monkeypatch.setattr(filesystem_probe, "mount_type", lambda _: "nfs")
    with pytest.raises(StoreError, match="is on nfs; write store: journal"):
        TrialQueue.open(made.store_url, made.study)
    assert TrialQueue.open(made.store_url, made.study, read_only=True).rows()


@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
def test_foreign_file_is_an_error(make_study, tmp_path, scheme):
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("my thesis")
    file = make_study(store=f"{scheme}:///{thesis}").source.path
    for verb in (check, prepared):
        with pytest.raises(StoreError, match=r"thesis.txt: is no .*and is left as it is"):
            verb(file)
    assert thesis.read_text() == "my thesis"


def test_study_on_network_is_cancelled(make_study, tmp_path, monkeypatch):
    """One that an earlier version made with an SQLite there: its jobs can be stopped, and it is not continued."""
    made = prepared(make_study(store="sqlite").source.path)
    monkeypatch.setattr(filesystem_probe, "network_type", lambda _: "nfs4")
    done = CliRunner().invoke(app, ["cancel", str(made.folder.path)], catch_exceptions=False)
    assert (done.exit_code, done.output.strip()) == (0, "stopped: nothing was running")
    assert made.folder.cancelled.exists()
    with pytest.raises(StoreError, match="on a network file system"):
        CliRunner().invoke(app, ["resume", str(made.folder.path)], catch_exceptions=False)

"""Studies are prepared, reopened, moved and edited; failures leave nothing behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpotune.checks.study_file import check
from hpotune.errors import HpotuneError, StoreError, StudyFileError
from hpotune.launch.extend import extend_study
from hpotune.launch.prepare import PreparedStudy, _edited_file, prepare
from hpotune.workspace.code_snapshot import find_snapshot
from hpotune.workspace.folder import StudyFolder


@pytest.fixture
def file(make_study) -> Path:
    """A valid study file."""
    return make_study().source.path


def again(target: Path) -> PreparedStudy:
    return prepare(target, chosen=None, data_root=None)


def every_file(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("store", ["sqlite", "journal"])
def test_lost_provenance_is_error(make_study, store):
    file = make_study(store=store).source.path
    folder = again(file).folder
    (folder.path / "trials" / "0").mkdir(parents=True)
    folder.provenance_file.unlink()
    before = every_file(folder.path)
    for target in (file, folder.path, folder.study_file):
        with pytest.raises(StudyFileError, match=r"provenance.json: is missing"):
            again(target)
        assert every_file(folder.path) == before


def test_failed_store_leaves_no_files(file, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise HpotuneError("no store")

    monkeypatch.setattr("hpotune.launch.prepare.TrialQueue.create", refuse)
    for exists in (False, True):
        if exists:
            (file.parent / "bowl").mkdir()
        with pytest.raises(HpotuneError, match="no store"):
            again(file)
        assert (file.parent / "bowl").exists() == exists
    assert list((file.parent / "bowl").iterdir()) == []


def test_moved_study_keeps_its_store(file):
    first = again(file)
    shutil.move(first.folder.path, file.parent / "moved")
    moved = prepare(file, chosen=file.parent / "moved", data_root=None)
    assert moved.store_url.endswith("moved/store.db") or moved.store_url.endswith("moved/store.journal")
    assert len(moved.store.rows()) == 6
    assert not first.folder.path.exists()
    assert len(again(file.parent / "moved").store.rows()) == 6


def test_symlink_names_same_study(file, tmp_path):
    first = again(file)
    (tmp_path / "link").symlink_to(file.parent)
    assert again(tmp_path / "link" / "study.yaml").folder == first.folder
    assert again(tmp_path / "link" / "bowl").store_url == first.store_url


@pytest.mark.parametrize("by", ["folder", "file"])
def test_edited_file_in_folder_applies(file, by):
    folder = again(file).folder
    text = folder.study_file.read_text()
    folder.study_file.write_text(text.replace("trials: 6", "trials: 9"))
    prepared = again(folder.path if by == "folder" else folder.study_file)
    assert prepared.study.config.budget.trials == folder.load().config.budget.trials == 9
    assert len(prepared.store.rows()) == 9
    folder.study_file.write_text(text.replace("- -3.0", "- -2.0"))
    with pytest.raises(StudyFileError, match="`params` differs"):
        again(folder.path)


def test_data_root_option_is_no_edit(tmp_path):
    folder = StudyFolder(path=tmp_path)
    folder.study_file.write_text("name: a\nmodel: {}\n")
    folder.resolved_file.write_text("name: a\nmodel: {}\ndata_root: /data\n")
    folder.provenance_file.write_text('{"home": "/", "store": "sqlite:////s.db"}')
    resolved = folder.read_resolved()
    assert _edited_file(folder, resolved, data_root=None) is None
    assert _edited_file(folder, resolved, data_root="/data") is None
    assert _edited_file(folder, resolved, data_root="/other") is not None


def test_function_study_ignores_data_root(file, tmp_path):
    assert prepare(file, chosen=None, data_root=str(tmp_path)).study.config.data_root is None


def test_useless_learning_rates_give_warning():
    configs = Path(__file__).parents[2] / "configs"
    (warning,) = check(configs / "llama3.2-3b-alpaca.yaml").warnings
    assert "llama3.2-3b-alpaca.yaml:" in warning
    assert "[1e-10, 0.1] contains rates at which an adapter does not learn" in warning
    assert check(configs / "llama3.2-1b-imdb.yaml").warnings == []


def test_missing_store_is_not_replaced(file):
    prepared = again(file)
    prepared.folder.trial(0).mkdir(parents=True)
    store = Path(prepared.store_url.partition(":///")[2])
    store.unlink()
    with pytest.raises(StoreError, match="the store is gone"):
        again(file)
    assert not store.exists()


def test_prepared_study_has_code_snapshot(file, monkeypatch):
    prepared = again(file)
    assert prepared.code == find_snapshot(prepared.folder).hash
    assert prepared.notes == again(prepared.folder.path).notes == ()
    (file.parent / "own.py").write_text("def bowl(x): return 1")
    assert again(prepared.folder.path).code == find_snapshot(prepared.folder).hash != prepared.code
    shutil.rmtree(prepared.folder.path)
    monkeypatch.setattr("hpotune.workspace.code_snapshot.MAX_FILES", 0)
    with pytest.raises(StudyFileError, match="too large for a code snapshot"):
        again(file)
    assert not prepared.folder.path.exists()


@pytest.mark.parametrize("by", ["file", "folder"])
def test_extended_study_keeps_added_trials(file, by):
    folder = again(file).folder
    extend_study(folder, {"trials": "+4"}, finished=0)
    asked = []
    target = file if by == "file" else folder.path
    prepared = prepare(
        target, chosen=None, data_root=None, accept=lambda _, study: asked.append(study.config)
    )
    assert prepared.study.config.budget.trials == asked[0].budget.trials == len(prepared.store.rows()) == 10


def test_missing_program_stops_study(file):
    folder = again(file).folder
    (file.parent / "own.py").unlink()
    with pytest.raises(StudyFileError, match=r"own.py.*cannot be read|cannot be read .*own.py"):
        again(folder.path)

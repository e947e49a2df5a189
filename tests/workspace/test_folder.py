"""A study's folder: whole files or none, one study, nothing left behind."""

from __future__ import annotations

import json

import pytest

from hpotune.config.load import load_study
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.workspace import folder as folders
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder, check_same_study, folder_of, home_of, make_folder

TEXT = """\
name: own
python: own.py:f
params: {x: {float: [0, 1]}}
score: {objective: {metric: value, direction: minimize}}
budget: {trials: 2}
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "study.yaml").write_text(TEXT)
    return load_study(tmp_path / "study.yaml")


def made(study, path) -> StudyFolder:
    folder = StudyFolder(path=path)
    make_folder(folder, study.source, home=path.parent, store_url="sqlite:///x")
    return folder


def test_folder_loads_its_study(study, tmp_path):
    folder = made(study, tmp_path / "own")
    assert folder.load().template == study.template
    assert folder.study_file.read_text() == TEXT
    provenance = folder.provenance()
    assert (provenance.home, provenance.store) == (tmp_path, "sqlite:///x")
    assert "optuna" in provenance.versions


def test_key_of_older_version_is_dropped(study, tmp_path):
    folder = made(study, tmp_path / "own")
    with folder.resolved_file.open("a") as file:
        file.write("execution: {pack: auto, lease_s: 60}\n")
    assert folder.load().config.execution.lease_s == 60
    assert folder.read_resolved().values["execution"] == {"lease_s": 60}
    check_same_study(folder, study.template)


def test_full_disk_is_reported(study, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "write_atomic", full)
    with pytest.raises(HpotuneError, match=r"cannot be written \(No space left on device\); free space"):
        made(study, tmp_path / "own")


def test_budget_may_differ(study, tmp_path):
    folder = made(study, tmp_path / "own")
    check_same_study(folder, {**study.template, "budget": {"trials": 9}})


@pytest.mark.parametrize("key", ["name", "params", "score", "python"])
def test_other_study_is_refused(key, study, tmp_path):
    folder = made(study, tmp_path / "own")
    with pytest.raises(StudyFileError, match=f"`{key}` differs"):
        check_same_study(folder, {**study.template, key: "other"})


def test_folder_with_other_files_is_refused(study, tmp_path):
    (tmp_path / "own").mkdir()
    check_same_study(StudyFolder(path=tmp_path / "own"), study.template)
    (tmp_path / "own" / "letter").touch()
    with pytest.raises(StudyFileError, match="holds other files and no study"):
        check_same_study(StudyFolder(path=tmp_path / "own"), study.template)


def test_target_names_its_folder(study, tmp_path):
    assert folder_of(tmp_path / "study.yaml").path == tmp_path / "own"
    assert folder_of(tmp_path / "study.yaml", chosen=tmp_path / "x").path == tmp_path / "x"
    folder = made(study, tmp_path / "own")
    assert folder_of(folder.path).path == folder.path
    assert folder_of(folder.study_file).path == folder.path


def test_symlink_means_same_folder(study, tmp_path):
    folder = made(study, tmp_path / "own")
    (tmp_path / "link").symlink_to(tmp_path)
    assert folder_of(tmp_path / "link" / "study.yaml") == folder
    assert folder_of(tmp_path / "link" / "own") == folder
    assert home_of(tmp_path / "link" / "study.yaml") == tmp_path


def test_copied_study_file_keeps_home(study, tmp_path):
    folder = made(study, tmp_path / "own")
    assert home_of(folder.study_file) == tmp_path


def test_store_moves_with_folder(study, tmp_path):
    folder = StudyFolder(path=tmp_path / "own")
    make_folder(folder, study.source, home=tmp_path, store_url=f"sqlite:///{folder.path / 'store.db'}")
    folder.path.rename(tmp_path / "moved")
    assert StudyFolder(path=tmp_path / "moved").provenance().store == f"sqlite:///{tmp_path}/moved/store.db"
    assert made(study, tmp_path / "other").provenance().store == "sqlite:///x"


def test_damaged_provenance_is_reported(study, tmp_path):
    folder = made(study, tmp_path / "own")
    folder.provenance_file.write_text("{")
    with pytest.raises(StudyFileError, match=r"provenance.json: is damaged .no JSON"):
        folder.provenance()


def test_provenance_is_written_once(study, tmp_path):
    folder = made(study, tmp_path / "own")
    before = folder.provenance_file.read_text()
    make_folder(folder, study.source, home=tmp_path, store_url="sqlite:///other")
    assert folder.provenance_file.read_text() == before
    assert json.loads(before)["store"] == "sqlite:///x"


def test_loaded_study_is_extended(study, tmp_path):
    folder = made(study, tmp_path / "own")
    before = folder.resolved_file.read_text()
    write_atomic(folder.extension_file, json.dumps({"trials": {"to": 7, "over": 2}}))
    assert folder.load().config.budget.trials == folder.in_force(study).config.budget.trials == 7
    assert folder.resolved_file.read_text() == before


def test_current_config_follows_files(study, tmp_path):
    folder = made(study, tmp_path / "own")
    loaded = folder.load()
    assert folder.current_config(loaded) is loaded.config
    write_atomic(folder.extension_file, json.dumps({"trials": {"to": 7, "over": 2}}))
    assert folder.current_config(loaded).budget.trials == 7
    write_atomic(folder.extension_file, json.dumps({"trials": {"to": 8, "over": 2}}))
    now = folder.current_config(loaded)
    assert (now.budget.trials, now.name, now.score) == (8, loaded.config.name, loaded.config.score)
    write_atomic(folder.resolved_file, folder.resolved_file.read_text().replace("trials: 2", "trials: 9"))
    assert folder.current_config(loaded).budget.trials == 9


def test_unchanged_files_are_read_once(study, tmp_path, monkeypatch):
    folder = made(study, tmp_path / "own")
    write_atomic(folder.extension_file, json.dumps({"trials": {"to": 7, "over": 2}}))
    folder.current_config(study)

    def refuse(*_: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(folders, "read_source", refuse)
    monkeypatch.setattr(folders.budget_extension, "read_extension", refuse)
    assert folder.current_config(study).budget.trials == 7


def test_damaged_extension_keeps_config(study, tmp_path):
    folder = made(study, tmp_path / "own")
    loaded = folder.load()
    folder.extension_file.write_text("{")
    assert folder.current_config(loaded) is loaded.config
    with pytest.raises(StudyFileError, match=r"extension.json: is damaged"):
        folder.load()

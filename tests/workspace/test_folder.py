"""A study's folder: whole files or none, one study, nothing left behind."""

from __future__ import annotations

import json
import os

import pytest

from hpotune.config.load import load_study
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.workspace import folder as folders
from hpotune.workspace.folder import (
    StudyFolder,
    check_same,
    check_writable,
    folder_of,
    home_of,
    make_folder,
    write_atomic,
)

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
    make_folder(folder, study, study.template, home=path.parent, store_url="sqlite:///x")
    return folder


def test_a_folder_gives_back_the_study_that_made_it(study, tmp_path):
    folder = made(study, tmp_path / "own")
    assert folder.load().template == study.template
    assert folder.study_file.read_text() == TEXT
    provenance = folder.provenance()
    assert (provenance["home"], provenance["store"]) == (str(tmp_path), "sqlite:///x")
    assert "optuna" in provenance["versions"]


def test_what_is_written_is_whole_and_readable_by_others(tmp_path):
    write_atomic(tmp_path / "a" / "file", "text")
    assert (tmp_path / "a" / "file").read_text() == "text"
    assert (tmp_path / "a" / "file").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    write_atomic(tmp_path / "file", "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_on_a_full_disk_is_named(study, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "write_atomic", full)
    with pytest.raises(HpotuneError, match=r"cannot be written \(No space left on device\); free space"):
        made(study, tmp_path / "own")


def test_the_same_study_may_come_again_with_another_budget(study, tmp_path):
    folder = made(study, tmp_path / "own")
    check_same(folder, {**study.template, "budget": {"trials": 9}})


@pytest.mark.parametrize("key", ["name", "params", "score", "python"])
def test_another_study_in_the_folder_is_refused_by_what_differs(key, study, tmp_path):
    folder = made(study, tmp_path / "own")
    with pytest.raises(StudyFileError, match=f"`{key}` differs"):
        check_same(folder, {**study.template, key: "other"})


def test_a_folder_with_other_things_is_refused_and_an_empty_one_is_not(study, tmp_path):
    (tmp_path / "own").mkdir()
    check_same(StudyFolder(path=tmp_path / "own"), study.template)
    (tmp_path / "own" / "letter").touch()
    with pytest.raises(StudyFileError, match="holds other files, no study"):
        check_same(StudyFolder(path=tmp_path / "own"), study.template)


def test_room_is_looked_for_above_a_folder_that_is_not_there(tmp_path):
    check_writable(StudyFolder(path=tmp_path / "a" / "b"))
    (tmp_path / "file").touch()
    with pytest.raises(HpotuneError, match="Not a directory"):
        check_writable(StudyFolder(path=tmp_path / "file" / "b"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_folder_is_named_by_the_study_or_chosen_or_itself(study, tmp_path):
    assert folder_of(tmp_path / "study.yaml").path == tmp_path / "own"
    assert folder_of(tmp_path / "study.yaml", chosen=tmp_path / "x").path == tmp_path / "x"
    folder = made(study, tmp_path / "own")
    assert folder_of(folder.path).path == folder.path
    assert folder_of(folder.study_file).path == folder.path


def test_a_study_reached_by_a_symlink_is_the_same(study, tmp_path):
    folder = made(study, tmp_path / "own")
    (tmp_path / "link").symlink_to(tmp_path)
    assert folder_of(tmp_path / "link" / "study.yaml") == folder
    assert folder_of(tmp_path / "link" / "own") == folder
    assert home_of(tmp_path / "link" / "study.yaml") == tmp_path


def test_a_study_file_in_a_studys_folder_keeps_its_home(study, tmp_path):
    folder = made(study, tmp_path / "own")
    assert home_of(folder.study_file) == tmp_path


def test_the_store_inside_a_folder_moves_with_it_and_one_outside_stays(study, tmp_path):
    folder = StudyFolder(path=tmp_path / "own")
    make_folder(
        folder, study, study.template, home=tmp_path, store_url=f"sqlite:///{folder.path / 'store.db'}"
    )
    folder.path.rename(tmp_path / "moved")
    assert (
        StudyFolder(path=tmp_path / "moved").provenance()["store"] == f"sqlite:///{tmp_path}/moved/store.db"
    )
    assert made(study, tmp_path / "other").provenance()["store"] == "sqlite:///x"


def test_a_damaged_provenance_is_named(study, tmp_path):
    folder = made(study, tmp_path / "own")
    folder.provenance_file.write_text("{")
    with pytest.raises(StudyFileError, match=r"provenance.json: is missing or damaged"):
        folder.provenance()


def test_provenance_stays_what_it_was_when_the_study_comes_again(study, tmp_path):
    folder = made(study, tmp_path / "own")
    before = folder.provenance_file.read_text()
    make_folder(folder, study, study.template, home=tmp_path, store_url="sqlite:///other")
    assert folder.provenance_file.read_text() == before
    assert json.loads(before)["store"] == "sqlite:///x"


def test_an_extension_is_in_force_in_what_is_loaded_and_the_file_stays_as_it_was(study, tmp_path):
    folder = made(study, tmp_path / "own")
    before = folder.resolved_file.read_text()
    write_atomic(folder.extension_file, json.dumps({"trials": {"to": 7, "over": 2}}))
    assert folder.load().config.budget.trials == folder.in_force(study).config.budget.trials == 7
    assert folder.resolved_file.read_text() == before


def test_the_config_of_now_follows_the_extension_and_the_file(study, tmp_path):
    folder = made(study, tmp_path / "own")
    loaded = folder.load()
    assert folder.config_now(loaded) is loaded.config
    write_atomic(folder.extension_file, json.dumps({"trials": {"to": 7, "over": 2}}))
    assert folder.config_now(loaded).budget.trials == 7
    write_atomic(folder.extension_file, json.dumps({"trials": {"to": 8, "over": 2}}))
    now = folder.config_now(loaded)
    assert (now.budget.trials, now.name, now.score) == (8, loaded.config.name, loaded.config.score)
    write_atomic(folder.resolved_file, folder.resolved_file.read_text().replace("trials: 2", "trials: 9"))
    assert folder.config_now(loaded).budget.trials == 9


def test_the_config_of_now_reads_no_file_twice_that_is_as_it_was(study, tmp_path, monkeypatch):
    folder = made(study, tmp_path / "own")
    write_atomic(folder.extension_file, json.dumps({"trials": {"to": 7, "over": 2}}))
    folder.config_now(study)

    def refuse(*_: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(folders, "read_source", refuse)
    monkeypatch.setattr(folders.budget_extension, "read_extension", refuse)
    assert folder.config_now(study).budget.trials == 7


def test_a_damaged_file_leaves_a_worker_the_config_that_it_has(study, tmp_path):
    folder = made(study, tmp_path / "own")
    loaded = folder.load()
    folder.extension_file.write_text("{")
    assert folder.config_now(loaded) is loaded.config
    with pytest.raises(StudyFileError, match=r"extension.json: is damaged"):
        folder.load()

"""Studies of students are found where they lie, and what is wrong with one is a sentence."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from hpotune.lab import student_study
from hpotune.lab.student_study import find_studies, read_all, read_study


def test_study_is_found_by_each_path(two_studies: list[Path]) -> None:
    home = two_studies[0]
    paths = [home, home / "study.yaml", home / "well", home / "well" / "resolved.yaml"]
    for path in paths:
        [found] = find_studies(path)
        assert found.path.resolve() == (home / "well").resolve(), path
        assert found.problem == ""
    assert find_studies(home)[0].student == home.name


def test_class_gives_each_student(class_folder: Path) -> None:
    found = find_studies(class_folder)
    assert len({one.student for one in found}) == 30
    assert [one.student for one in found if one.problem] == ["s06", "s07"]
    [missing] = find_studies(class_folder / "nobody")
    assert missing.problem == "there is no such folder"


@pytest.mark.parametrize(
    ("student", "said"),
    [
        ("s01", "cannot be read"),
        ("s02", "resolved.yaml:"),
        ("s03", "provenance.json: is missing"),
        ("s04", "cannot be read"),
        ("s06", "no study was started; study files: study.yaml"),
        ("s07", "holds no study"),
    ],
)
def test_damage_is_one_sentence(class_folder: Path, student: str, said: str) -> None:
    [found] = read_all([class_folder / student])
    assert said in found.problem
    assert "\n" not in found.problem
    assert found.study is None


def test_closed_folder_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: object) -> object:  # root may read every folder
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", closed)
    [found] = find_studies(tmp_path)
    assert found.problem == "cannot be read (Permission denied)"


@pytest.fixture
def foreign(two_studies: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study's folder that counts as another user's."""
    shutil.copytree(two_studies[0] / "well", tmp_path / "ann" / "well")
    monkeypatch.setattr(student_study, "_is_trusted", lambda path: False)
    return tmp_path / "ann" / "well"


def test_foreign_study_is_read(foreign: Path) -> None:
    [found] = read_all([foreign])
    assert found.problem == ""
    assert found.student == "ann"
    assert len(found.rows) == 4


@pytest.mark.parametrize("name", ["resolved.yaml", "store.db", "provenance.json"])
def test_foreign_links_are_refused(foreign: Path, two_studies: list[Path], name: str) -> None:
    (foreign / name).unlink()
    (foreign / name).symlink_to(two_studies[0] / "well" / name)
    [found] = read_all([foreign])
    assert f"{name} is a link, in a folder of another user" in found.problem


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("postgresql://ann@host/db", "on a server"),
        ("sqlite:////srv/other/store.db", "outside the study's folder"),
    ],
)
def test_foreign_store_elsewhere_is_refused(foreign: Path, store: str, said: str) -> None:
    file = foreign / "provenance.json"
    file.write_text(file.read_text().replace(f"sqlite:///{foreign.parent.parent}", "x"))
    import json

    recorded = json.loads(file.read_text())
    file.write_text(json.dumps({**recorded, "store": store}))
    found = read_study(find_studies(foreign)[0])
    assert said in found.problem

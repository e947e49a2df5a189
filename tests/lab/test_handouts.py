"""The files of every handout: they are a valid study, they are copied whole, and a student's work stays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpotune.checks.study_file import check
from hpotune.errors import StudyFileError
from hpotune.lab.handouts import FACTS, FOLDER, handouts, prepare_handout

NUMBERS = [one.number for one in handouts()]


@pytest.mark.parametrize("number", NUMBERS)
def test_handout_is_ready_to_use(number: int, tmp_path: Path) -> None:
    done = prepare_handout(number, tmp_path / "mine")
    assert set(done.written) == {path.name for path in (FOLDER / str(number)).iterdir() if path.is_file()} - {
        FACTS
    }
    assert "README.md" in done.written
    for file in sorted((tmp_path / "mine").glob("*.yaml")):
        assert check(file).study.config.budget.trials > 0
    for script in (tmp_path / "mine").glob("*.sh"):
        assert os.access(script, os.X_OK)
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert prepare_handout(number, tmp_path / "mine").written == ()


def test_work_of_a_student_stays(tmp_path: Path) -> None:
    prepare_handout(1, tmp_path)
    (tmp_path / "objective.py").write_text("mine")
    (tmp_path / "README.md").unlink()
    with pytest.raises(StudyFileError, match=r"objective\.py: is there already and differs"):
        prepare_handout(1, tmp_path)
    assert (tmp_path / "objective.py").read_text() == "mine"
    assert not (tmp_path / "README.md").exists()


def test_unknown_number_lists_the_others(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="handout 99: there is none; needs one of 1"):
        prepare_handout(99, tmp_path)


def test_file_instead_of_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StudyFileError, match="cannot be written"):
        prepare_handout(1, tmp_path / "taken")

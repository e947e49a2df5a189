"""The record of the openings of a sealed test."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.errors import StudyFileError
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.openings import openings_file, openings_text, read_openings, record_opening


def test_openings_are_counted(tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path)
    assert read_openings(folder) == ()
    first = record_opening(folder, [3, 7], after=0, home=tmp_path)
    second = record_opening(folder, [3], after=1, home=tmp_path)
    assert read_openings(folder) == (first, second)
    assert (first.trials, second.number) == ((3, 7), 2)
    assert first.user
    assert first.version
    assert openings_text([first, second]).startswith("sealed test opened 2 times (20")


def test_simultaneous_opening_is_refused(tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path)
    record_opening(folder, [3], after=0, home=tmp_path)
    with pytest.raises(StudyFileError, match="another `hpotune test`"):
        record_opening(folder, [3], after=0, home=tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"openings": 3}', '{"openings": [{"trials": 3}]}'])
def test_damaged_record_is_one_line(text: str, tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path)
    openings_file(folder).parent.mkdir()
    openings_file(folder).write_text(text)
    with pytest.raises(StudyFileError, match=r"openings\.json: is damaged.*restore it"):
        read_openings(folder)

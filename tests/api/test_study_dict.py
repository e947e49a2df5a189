"""The study file of a mapping: its types, and which file is never overwritten."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from hpotune.api.study_dict import budget_words, plain_values, write_study_file
from hpotune.config.yaml_source import read_source
from hpotune.errors import StudyFileError


def bowl(x: float) -> float:
    """An objective in a file."""
    return x


VALUES: Mapping[str, object] = {"name": "s", "params": {"x": {"float": [0, 1]}}, "budget": {"trials": 2}}


def test_types_become_those_of_a_file(tmp_path: Path) -> None:
    values = {
        "python": bowl,
        "paths": (Path("a/b"), np.float64(0.5), np.int64(3)),
        "until": datetime.date(2026, 12, 31),
        "wall_time": datetime.timedelta(days=1, hours=2),
        "none": None,
    }
    assert plain_values(values, tmp_path) == {
        "python": f"{Path(__file__).resolve()}:bowl",
        "paths": ["a/b", 0.5, 3],
        "until": "2026-12-31",
        "wall_time": "1-02:00:00",
        "none": None,
    }
    assert plain_values({"python": bowl}, Path(__file__).parent) == {"python": "test_study_dict.py:bowl"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (object(), "train.x: object cannot be written"),
        (lambda: None, "train.x: .*defined inside another function"),
        (b"bytes", "train.x: bytes cannot be written"),
    ],
)
def test_other_values_are_named(value: object, text: str, tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=text):
        plain_values({"train": {"x": value}}, tmp_path)


def test_function_of_a_cell_is_refused(tmp_path: Path) -> None:
    names: dict[str, object] = {}
    exec(compile("def f(x):\n    return x\n", "<ipython-input-1>", "exec"), names)
    with pytest.raises(StudyFileError, match=r"%%writefile"):
        plain_values({"python": names["f"]}, tmp_path)


def test_file_is_written_once_and_kept(tmp_path: Path) -> None:
    file = write_study_file(VALUES, tmp_path)
    assert read_source(file).values == VALUES
    before = file.stat().st_mtime_ns
    assert write_study_file(VALUES, tmp_path) == file
    assert file.stat().st_mtime_ns == before


def test_unedited_file_follows_the_program(tmp_path: Path) -> None:
    write_study_file(VALUES, tmp_path)
    file = write_study_file({**VALUES, "budget": {"trials": 5}}, tmp_path)
    assert read_source(file).values["budget"] == {"trials": 5}


def test_edited_file_is_not_overwritten(tmp_path: Path) -> None:
    file = write_study_file(VALUES, tmp_path)
    text = file.read_text().replace("trials: 2", "trials: 9")
    file.write_text(text)
    with pytest.raises(StudyFileError, match="its `budget` differs"):
        write_study_file(VALUES, tmp_path)
    assert file.read_text() == text


@pytest.mark.parametrize("name", [None, 3, "a/b", "../s"])
def test_name_must_be_one(name: object, tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="name="):
        write_study_file({**VALUES, "name": name}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_numbers_are_added_to_a_budget() -> None:
    hours = datetime.timedelta(hours=12)
    assert budget_words(trials=20, gpu_hours=None, wall_time=hours, max_failed="none") == {
        "trials": "+20",
        "wall_time": "+12:00:00",
        "max_failed": "none",
    }
    with pytest.raises(StudyFileError, match="needs a limit"):
        budget_words(trials=None)

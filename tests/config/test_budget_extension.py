"""Extensions of a budget: options, sums, and later edits of the study file."""

from __future__ import annotations

import json

import pytest

from hpotune.config.budget_extension import (
    Extension,
    effective_budget,
    merged_extension,
    overridden_edits,
    read_extension,
)
from hpotune.config.schema.execution import BudgetConfig
from hpotune.errors import StudyFileError

FILE = {
    "trials": 50,
    "parallel": 4,
    "max_failed": 5,
    "gpu_hours": 100.0,
    "wall_time": "12:00:00",
    "until": "2026-12-24",
}


def budget(**changes: object) -> BudgetConfig:
    return BudgetConfig.model_validate(FILE | changes)


def after(*words: tuple[str, str], finished: int = 0, **edited: object) -> BudgetConfig:
    """The effective budget after each extension, with the file edited at the end."""
    extension: Extension = {}
    for key, word in words:
        extension = merged_extension(
            budget(), json.loads(json.dumps(extension)), {key: word}, finished=finished
        )
    return effective_budget(budget(**edited), extension)


@pytest.mark.parametrize(
    ("key", "word", "value"),
    [
        ("trials", "+20", 70),
        ("trials", "70", 70),
        ("trials", "30", 30),
        ("parallel", "8", 8),
        ("parallel", "+1", 5),
        ("max_failed", "+5", 10),
        ("max_failed", "0", 0),
        ("gpu_hours", "+50", 150.0),
        ("gpu_hours", "+0.5", 100.5),
        ("wall_time", "+12:00:00", "1-00:00:00"),
        ("wall_time", "+90", "0-13:30:00"),
        ("wall_time", "+1-12:30:05", "2-00:30:05"),
        ("wall_time", "20:00:00", "20:00:00"),
        ("until", "2026-12-31", "2026-12-31"),
        ("until", "none", None),
        ("gpu_hours", "none", None),
        ("wall_time", "none", None),
        ("until", "2026-12-31 18:00", "2026-12-31 18:00:00"),
    ],
)
def test_plus_adds_and_value_replaces(key, word, value):
    assert str(getattr(after((key, word)), key)) == str(value)
    assert effective_budget(budget(), {}) == budget()


def test_second_extension_adds():
    assert after(("trials", "+20"), ("trials", "+5"), ("parallel", "8")).trials == 75


@pytest.mark.parametrize(
    ("word", "edited", "trials"),
    [("+20", 50, 70), ("+20", 60, 70), ("+20", 100, 100), ("+20", 10, 70), ("30", 50, 30), ("30", 40, 40)],
    ids=["unedited", "raised_below", "raised_above", "lowered", "less_and_unedited", "less_and_edited"],
)
def test_larger_of_edit_and_extension(word, edited, trials):
    assert after(("trials", word), trials=edited).trials == trials


def test_no_limit_is_largest():
    assert after(("gpu_hours", "+50"), gpu_hours=None).gpu_hours is None
    extension = merged_extension(budget(gpu_hours=None), {}, {"gpu_hours": "20"}, finished=0)
    assert effective_budget(budget(gpu_hours=None), extension).gpu_hours == 20


def test_date_includes_whole_day():
    assert str(after(("until", "2026-12-31 18:00"), until="2026-12-31").until) == "2026-12-31"


@pytest.mark.parametrize(
    ("key", "word", "says"),
    [
        ("trials", "many", "--trials many: needs +20 or 70"),
        ("trials", "+0", "needs +20 or 70"),
        ("trials", "-5", "needs +20 or 70"),
        ("trials", "0", "needs +20 or 70"),
        ("trials", "+1.5", "needs +20 or 70"),
        ("trials", "none", "needs +20 or 70"),
        ("trials", "++5", "needs +20 or 70"),
        ("trials", "11", "12 trials have finished; needs 12 or more"),
        ("parallel", "0", "needs +4 or 8"),
        ("gpu_hours", "nan", "needs +50, 200 or none"),
        ("gpu_hours", "inf", "needs +50, 200 or none"),
        ("gpu_hours", "+-1", "needs +50, 200 or none"),
        ("wall_time", "+soon", "--wall-time +soon: needs +12:00:00"),
        ("wall_time", "+0", "needs +12:00:00"),
        ("until", "+3", "needs a date, such as 2026-12-31"),
        ("until", "tomorrow", "needs 2026-12-31"),
        ("until", "2026-13-01", "needs 2026-12-31"),
    ],
)
def test_wrong_value_names_its_rule(key, word, says):
    with pytest.raises(StudyFileError) as raised:
        merged_extension(budget(), {}, {key: word}, finished=12)
    (line,) = raised.value.mistakes
    assert says in line


def test_unlimited_budget_cannot_grow():
    with pytest.raises(StudyFileError, match="has no limit that could be raised"):
        merged_extension(budget(gpu_hours=None), {}, {"gpu_hours": "+20"}, finished=0)


def test_every_wrong_value_is_reported():
    with pytest.raises(StudyFileError) as raised:
        merged_extension(budget(), {}, {"trials": "x", "parallel": "y", "max_failed": "+1"}, finished=0)
    assert len(raised.value.mistakes) == 2


def test_overridden_edit_is_reported():
    extension = merged_extension(budget(), {}, {"trials": "+20"}, finished=0)
    assert (
        overridden_edits(budget(), extension)
        == overridden_edits(budget(trials=100), extension)
        == overridden_edits(budget(parallel=9), extension)
        == []
    )
    (line,) = overridden_edits(budget(trials=40), extension)
    assert line.startswith("budget.trials=40 in the study file is not used: it was extended to 70")


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"trials": 5}', '{"trials": {"to": "x", "over": 1}}', '{"a": {"to": 1}}']
)
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / "extension.json").write_text(text)
    with pytest.raises(StudyFileError, match=r"extension.json: is damaged"):
        read_extension(tmp_path / "extension.json")


def test_no_file_is_no_extension(tmp_path):
    assert read_extension(tmp_path / "extension.json") == {}

"""Thirty real studies, damaged ones among them, in one table."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from hpotune.lab.class_overview import ClassOverview, OverviewRow, class_overview
from hpotune.reporting.json_output import as_json
from tests.fixtures.report_studies import NOW, fine_tuning
from tests.lab.conftest import MARKUP

KEYS = (
    "student study folder state problem trials budget score best stderr gain gpu_hours trial_hours failures "
    "last_activity hints"
)


@pytest.fixture(scope="module")
def found(class_folder: Path) -> ClassOverview:
    return class_overview([class_folder], now=datetime.now())


def row(found: ClassOverview, student: str) -> OverviewRow:
    return next(one for one in found.rows if one.student == student)


def test_each_student_has_a_row(found: ClassOverview) -> None:
    assert [one.student for one in found.rows] == sorted([*(f"s{n:02}" for n in range(1, 30)), MARKUP])
    states = [one.state for one in found.rows]
    assert {state: states.count(state) for state in states} == {"done": 24, "unreadable": 4, "not run": 2}


def test_row_holds_the_numbers(found: ClassOverview) -> None:
    well, failing = row(found, "s08"), row(found, "s10")
    assert (well.study, well.trials, well.budget, well.score, well.failures) == ("well", 4, 4, "loss", {})
    assert well.best is not None
    assert (round(well.best, 3), well.stderr, well.gain) == (0.019, 0.01, None)
    assert well.gpu_hours == 0
    assert well.trial_hours > 0
    assert well.last_activity is not None
    assert 0 < datetime.now().timestamp() - well.last_activity < 3600
    assert dict(failing.failures) == {"user": 2}
    assert failing.open_hints == sum(hint.level != "good" for hint in failing.hints) > 0


def test_damaged_study_says_why(found: ClassOverview) -> None:
    for student in ("s01", "s02", "s03", "s04", "s06", "s07"):
        one = row(found, student)
        assert one.problem
        assert one.problem in one.hints[0].text
        assert (one.best, one.trials) == (None, 0)


def test_damaged_openings_are_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fine_tuning(tmp_path)
    monkeypatch.setattr("hpotune.lab.student_study.rows_of", lambda *_, **__: made.rows)
    (made.folder.path / "test").mkdir()
    (made.folder.path / "test" / "openings.json").write_text("{")
    [one] = class_overview([made.folder.path], now=NOW).rows
    assert one.state == "unreadable"
    assert "openings.json: is damaged" in one.problem


def test_fine_tuning_has_gain_and_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fine_tuning(tmp_path)
    monkeypatch.setattr("hpotune.lab.student_study.rows_of", lambda *_, **__: made.rows)
    [one] = class_overview([made.folder.path], now=NOW).rows
    assert one.gain is not None
    assert one.gain.significant
    assert one.gpu_hours > 1
    assert one.state == "interrupted"
    assert dict(one.failures) == {"oom": 3}


def test_json_has_its_keys(found: ClassOverview) -> None:
    shown = as_json(found)
    assert isinstance(shown, dict)
    assert list(shown) == ["made", "rows"]
    rows = json.loads(json.dumps(shown["rows"]))
    assert all(" ".join(one) == KEYS for one in rows)
    assert list(rows[10]["hints"][0]) == ["kind", "level", "text", "next_step"]


def test_command_shows_thirty_studies(class_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hpotune", "lab", "overview", class_folder, "-o", tmp_path / "o.html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    summary = "30 studies of 30 students: 24 done, 2 not run, 4 unreadable"
    assert any(line.startswith(summary) for line in done.stdout.splitlines())

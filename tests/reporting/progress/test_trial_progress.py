"""The progress of a running trial as displays read it: time left, reports of commands, and files of any content."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from hpotune.reporting.progress.trial_progress import TrialProgress, trial_progress
from hpotune.reporting.status_table import progress_cells, status_table
from hpotune.reporting.views.status import study_status
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.report_rows import FINETUNE, NOW, config, printed, running, scored_at_rungs

WRITTEN = NOW.timestamp() - 4
"""When the file was written: four seconds ago."""


def progress_of(folder: Path, text: str | None, *, log: str = "", **sections: object) -> TrialProgress | None:
    own = folder / "trials" / "1"
    own.mkdir(parents=True, exist_ok=True)
    (own / "log.txt").write_text(log)
    if text is not None:
        (own / "progress.json").write_text(text)
        os.utime(own / "progress.json", (WRITTEN, WRITTEN))
    return trial_progress(StudyFolder(path=folder), config(**sections), running(1), now=NOW)


def test_time_left_follows_the_pace(tmp_path: Path) -> None:
    resumed = {"phase": "train", "step": 60, "steps": 100, "first_step": 40, "seconds": 10}
    found = progress_of(tmp_path, json.dumps(resumed), **FINETUNE)
    assert found == TrialProgress(phase="train", step=60, steps=100, seconds=14, left_s=16)
    assert progress_cells(found) == ("training, step 60 of 100", "16 s")
    scored = progress_of(
        tmp_path, '{"phase": "score", "task": "arc\\u001b[2J", "step": 0, "steps": 9}', **FINETUNE
    )
    assert progress_cells(scored) == ("scoring arc<U+001B>[2J, request 0 of 9", "")


WRONG: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_text(""),
    "list": lambda file: file.write_text("[1]"),
    "deep": lambda file: file.write_text("[" * 4000),
    "other phase": lambda file: file.write_text('{"phase": "\\u001b[31m"}'),
    "negative": lambda file: file.write_text('{"phase": "train", "step": -1, "steps": 5}'),
    "true": lambda file: file.write_text('{"phase": "train", "step": true, "steps": 5}'),
    "no steps": lambda file: file.write_text('{"phase": "train", "step": 1, "steps": 0}'),
    "infinite": lambda file: file.write_text('{"phase": "train", "seconds": Infinity}'),
    "large": lambda file: file.write_text('{"phase": "train", "task": "' + "x" * 9000 + '"}'),
    "binary": lambda file: file.write_bytes(b"\xff\xfe\x00"),
    "folder": lambda file: file.mkdir(),
    "pipe": lambda file: os.mkfifo(file),
    "lost link": lambda file: file.symlink_to("nowhere"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_file_shows_the_start(tmp_path: Path, what: str) -> None:
    (tmp_path / "trials" / "1").mkdir(parents=True)
    WRONG[what](tmp_path / "trials" / "1" / "progress.json")
    assert progress_of(tmp_path, None, **FINETUNE) == TrialProgress(phase="start")


def test_command_shows_its_last_report(tmp_path: Path) -> None:
    command = {"python": None, "command": "train"}
    log = 'starting\n{"acc": 0.25}\n{"acc": 0.5, "step": 2}\n{"acc": NaN}\n{"acc": "high"}\n{"acc": 0.'
    found = progress_of(tmp_path, None, log=log, **command)
    assert found is not None
    assert progress_cells(found) == ("running, last reported acc 0.5", "")
    own = progress_of(tmp_path, '{"phase": "save", "step": 3, "steps": 4, "seconds": 30}', **command)
    assert own is not None
    assert progress_cells(own) == ("running, step 3 of 4", "6 s")
    at_rung = replace(running(1), rung_scores=scored_at_rungs(1, 0.75).rung_scores)
    folder = StudyFolder(path=tmp_path)
    assert progress_cells(trial_progress(folder, config(), at_rung, now=NOW))[0].endswith("reported acc 0.75")


def test_status_shows_phases(tmp_path: Path) -> None:
    progress_of(tmp_path, '{"phase": "train", "step": 5, "steps": 10, "seconds": 60}')
    rows = [running(1, seconds=900), running(2)]
    sections = config(**FINETUNE)
    found = study_status(
        StudyFolder(path=tmp_path), sections, rows, [], [], now=datetime.fromtimestamp(WRITTEN)
    )
    shown = printed(status_table(found, now=NOW)).splitlines()
    header = next(line for line in shown if line.startswith("trial"))
    assert header.split("  ")[-2:] == ["phase", "phase ends in"] or header.endswith("phase ends in")
    assert "training, step 5 of 10  60 s" in next(line for line in shown if line.startswith("1 "))

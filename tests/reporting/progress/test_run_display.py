"""The display of `hpotune run`: on a real terminal the trials, their phases and the best; in a pipe plain lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fixtures.trained_study import SCREEN, hpotune, hpotune_on_terminal

STUDY = """\
name: bowl
python: own.py:bowl
params: {x: {float: [0, 1]}}
score: {objective: {metric: value, direction: minimize}}
budget: {trials: 2, parallel: 1}
"""
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(
        "def bowl(x):\n    if x > 0.5:\n        raise ValueError('\\x1b[2J')\n    return x\n"
    )
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path / "study.yaml"


def lines_on(screen: bytes) -> list[str]:
    """All lines that were written to a terminal, without its control sequences."""
    return [line.rstrip() for line in ESCAPE.sub("", screen.decode()).splitlines()]


def test_terminal_shows_phases_and_best(trained_study: Path) -> None:
    raw = trained_study.with_name(SCREEN).read_bytes()
    assert b"\x1b[2K" in raw  # the display was redrawn
    lines = lines_on(raw)
    assert any(re.match(r"small [━╸╺]+ 1/3 trials", line) for line in lines)
    assert any(re.match(r"trial [12]  training, step \d+ of 80  [━╸╺]+ .*lora\.r=", line) for line in lines)
    last = max(index for index, line in enumerate(lines) if re.match(r"small [━╸╺]+ 3/3 trials", line))
    assert re.match(r"best so far: trial \d finished: toy_topics/acc \S+ ± ", lines[last + 1])
    log = (trained_study.parent / "small" / "trials" / "1" / "log.txt").read_text()
    phases = re.findall(r"^\d{4}-\d\d-\d\d [\d:]{8} phase: (.+)$", log, re.MULTILINE)
    order = [
        "reading the data", "loading the model", "training", "saving the weights", "evaluating",
        "scoring toy_topics",
    ]  # fmt: skip
    assert [name for name in dict.fromkeys(phases) if name in order] == order
    assert not list((trained_study.parent / "small" / "trials").glob("*/progress.json"))


def test_terminal_shows_time_left(study: Path) -> None:
    """Each trial takes longer than it takes the display to read them: the state between the two is seen."""
    study.with_name("own.py").write_text("import time\n\n\ndef bowl(x):\n    time.sleep(3)\n    return x\n")
    code, shown = hpotune_on_terminal("run", study, "--no-rehearsal")
    lines = lines_on(shown)
    assert code == 0, lines
    assert any(re.match(r"bowl [━╸╺]+ 1/2 trials \S+ +about \d+ s left", line) for line in lines), lines


def test_pipe_gets_no_control_characters(study: Path) -> None:
    done = hpotune("run", study, "--no-rehearsal")
    assert "trial 0 finished: value" in done.stderr
    controls = set(re.findall(r"[^\n\x20-\x7e\x80-\uffff]", done.stderr + done.stdout))
    assert controls == set(), done.stderr


def test_dumb_terminal_gets_plain_lines(study: Path) -> None:
    _, shown = hpotune_on_terminal("run", study, "--no-rehearsal", term="dumb")
    assert b"trial 0 finished: value" in shown
    assert b"\x1b" not in shown

"""`report`, `plot` and `dashboard` by the command line, on a study of an earlier version and on one that runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.old_studies import OldStudy, hpotune, put_back

FUNCTION = "import time\n\ndef f(x):\n    time.sleep(2)\n    return {'loss': x}\n"
FILE = """name: slow
python: own.py:f
params: {x: {float: [0, 1]}}
score: {objective: {metric: loss}}
budget: {trials: 3, parallel: 1}
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> OldStudy:
    return put_back("sqlite", tmp_path_factory.mktemp("old"))


def test_report_is_written_into_the_folder(old: OldStudy) -> None:
    done = hpotune("report", old.folder)
    assert (done.returncode, done.stdout) == (0, f"wrote {old.folder}/report.html\n")
    assert "<title>descent: report</title>" in (old.folder / "report.html").read_text(encoding="utf-8")


def test_report_prints_json(old: OldStudy) -> None:
    done = hpotune("report", old.folder, "--json")
    assert json.loads(done.stdout)["best"]["study"] == "descent"
    assert hpotune("report", old.folder, "-o", "-", "--format", "csv").stdout.startswith("trial,kind,state,")


def test_plot_lists_and_draws(old: OldStudy, tmp_path: Path) -> None:
    listed = hpotune("plot", old.folder)
    assert listed.returncode == 0
    assert "score-over-trials" in listed.stdout
    done = hpotune("plot", old.folder, "rungs", "-o", tmp_path / "rungs.pdf")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rungs.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["report", "--format", "docx"], "--format docx: no such format; valid: csv, html, json, md, pdf"),
        (["plot", "rung"], "'rung': no such figure; did you mean 'rungs'?"),
        (["plot", "rungs", "-o", "x.gif"], "x.gif: ends with .gif; valid: pdf, png, svg"),
        (
            ["plot", "pareto-front", "-o", "x.svg"],
            "pareto-front: nothing to draw: the study has one objective",
        ),
        (["report", "-o", "/proc/nowhere/report.html"], "/proc/nowhere"),
        (["dashboard", "--port", "99999"], "--port"),
    ],
)
def test_mistakes_are_one_line(old: OldStudy, words: list[str], text: str) -> None:
    done = hpotune(words[0], old.folder, *words[1:])
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_watch_follows_a_running_study(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FUNCTION)
    (tmp_path / "slow.yaml").write_text(FILE)
    command = [sys.executable, "-m", "hpotune", "run", str(tmp_path / "slow.yaml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while not (tmp_path / "slow" / "jobs").is_dir():
            assert run.poll() is None
        done = hpotune("report", tmp_path / "slow", "--watch", "--every", "5")
        assert run.wait(timeout=60) == 0
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first != last
    assert last.endswith("report.html: done, 3 trials")
    assert "done, 3 of 3 trials" in (tmp_path / "slow" / "report.html").read_text(encoding="utf-8")

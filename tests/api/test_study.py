"""`hpotune.Study` on a study that really runs: from a mapping to its report, beside the verbs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hpotune
from hpotune.cli import app
from hpotune.errors import HpotuneError, StudyFileError

PROGRAM = "def bowl(x):\n    return {'value': (x - 0.3) ** 2}\n"
VALUES: dict[str, object] = {
    "name": "bowl",
    "python": "own.py:bowl",
    "params": {"x": {"float": [0, 1]}},
    "score": {"objective": {"metric": "value", "direction": "minimize"}},
    "search": {"algorithm": "random"},
    "store": "sqlite",
    "budget": {"trials": 2, "parallel": 1},
}


def written(folder: Path, **changed: object) -> hpotune.Study:
    """A study whose trials take no time."""
    (folder / "own.py").write_text(PROGRAM)
    return hpotune.Study.from_dict({**VALUES, **changed}, folder=folder)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> hpotune.Study:
    """A study of two trials that has run."""
    study = written(tmp_path_factory.mktemp("ran"))
    study.run(show=False)
    return study


def verb(name: str, study: hpotune.Study, *words: str) -> Any:
    command = [sys.executable, "-m", "hpotune", name, str(study.path), *words, "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_run_gives_the_best_trial(ran: hpotune.Study) -> None:
    trials = ran.trials
    assert [(trial.number, trial.state) for trial in trials] == [(0, "finished"), (1, "finished")]
    best = ran.best
    assert best.best is not None
    assert best.best.values["value"] == min(trial.values["value"] for trial in trials)
    assert (ran.status.state, ran.wait(timeout=0).state) == ("done", "done")


def test_verbs_give_the_same_json(ran: hpotune.Study) -> None:
    assert hpotune.as_json(ran.trials) == verb("trials", ran)
    assert hpotune.as_json(ran.best) == verb("best", ran)
    mine, status = hpotune.as_json(ran.status), verb("status", ran)
    assert mine == status


def test_thread_runs_what_was_added(tmp_path: Path) -> None:
    """As the verbs do it by hand: extend, then run again; meanwhile `wait` sees the end."""
    study = written(tmp_path, budget={"trials": 1})
    with ThreadPoolExecutor() as threads:
        threads.submit(study.run, show=False).result()
        assert study.extend(trials=1).changed == {"trials": (1, 2)}
        running = threads.submit(study.run, show=False)
        assert study.wait(every=1).state == "done"
        best = running.result().best
    assert best is not None
    assert [trial.number for trial in study.trials] == [0, 1]
    assert study.resume(show=False) == study.best  # nothing is left to do


def test_report_and_export_are_files(ran: hpotune.Study, tmp_path: Path) -> None:
    assert ran.report() == ran.folder / "report.html"
    page = ran.report(tmp_path / "trials.csv")
    assert len(page.read_text().splitlines()) == 3
    written = ran.export(tmp_path / "best", form="study").written
    assert written is not None
    assert written.is_file()


def test_frame_has_a_row_a_trial(ran: hpotune.Study) -> None:
    frame = ran.trials_frame()
    assert list(frame.index) == [0, 1]
    assert list(frame["value"]) == [trial.values["value"] for trial in ran.trials]
    assert list(frame["params.x"]) == [trial.params["params.x"] for trial in ran.trials]


def test_frame_without_pandas_says_so(ran: hpotune.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(HpotuneError, match="pip install pandas"):
        ran.trials_frame()


def test_errors_have_the_verbs_text(ran: hpotune.Study, tmp_path: Path) -> None:
    calls: list[tuple[list[str], Callable[[], object]]] = [
        (["extend", str(ran.path), "--trials", "1"], lambda: ran.extend(trials="1")),
        (["test", str(ran.path)], ran.test),
        (
            ["export", str(ran.path), "--trial", "7", str(tmp_path / "e")],
            lambda: ran.export(tmp_path / "e", trial=7),
        ),
        (["report", str(ran.path), "--format", "doc"], lambda: ran.report(format="doc")),  # type: ignore[arg-type]
        (["status", str(written(tmp_path).path)], lambda: written(tmp_path).status),
    ]
    for words, call in calls:
        with pytest.raises(HpotuneError) as raised:
            call()
        done = CliRunner().invoke(app, words)
        assert str(done.exception) == str(raised.value)


def test_cancelled_study_is_an_error(tmp_path: Path) -> None:
    study = written(tmp_path)
    (tmp_path / "own.py").write_text(
        "import time\ndef bowl(x):\n    open('started', 'w').close()\n    time.sleep(600)\n"
    )
    with ThreadPoolExecutor() as threads:
        running = threads.submit(study.run, show=False)
        while not (tmp_path / "started").exists():
            assert not running.done()
            time.sleep(0.1)
        assert "local worker" in study.cancel()[0]
        with pytest.raises(HpotuneError, match="was cancelled"):
            running.result()
    assert study.status.state == "cancelled"


SCRIPT = """\
import time
from pathlib import Path

import hpotune


def bowl(x):
    with open("calls", "a") as file:
        file.write("x")
    while len(Path("calls").read_text()) == 2 and not Path("go").exists():
        time.sleep(0.1)
    return x


hpotune.Study.from_dict({
    "name": "killed", "python": bowl, "params": {"x": {"float": [0, 1]}},
    "score": {"objective": {"metric": "value", "direction": "minimize"}},
    "search": {"algorithm": "random"}, "budget": {"trials": 3, "parallel": 1}, "store": "sqlite",
}).run()
raise RuntimeError("below the study: no trial comes here")
"""


def test_killed_script_continues(tmp_path: Path) -> None:
    """A script without a guard, whose function the trials import from it."""
    (tmp_path / "tune.py").write_text(SCRIPT)
    command = [sys.executable, "tune.py"]
    first = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    calls = tmp_path / "calls"
    while not calls.exists() or len(calls.read_text()) < 2:
        assert first.poll() is None
        time.sleep(0.1)
    first.kill()
    first.wait()
    (tmp_path / "go").touch()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "RuntimeError: below the study" in again.stderr
    study = hpotune.Study.load(tmp_path / "killed.yaml")
    assert [(trial.state, trial.attempts) for trial in study.trials] == [
        ("finished", 1),
        ("finished", 2),
        ("finished", 1),
    ]
    assert len(calls.read_text()) == 4


def test_check_returns_mistakes(tmp_path: Path) -> None:
    assert written(tmp_path).check().parameters == ("params.x",)
    wrong = written(tmp_path, budget={"trials": 0}).check()
    assert not wrong.ok
    assert "budget.trials" in wrong.mistakes[0]
    with pytest.raises(StudyFileError, match=r"budget\.trials"):
        wrong.raise_mistakes()


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="does not exist"):
        hpotune.Study.load(tmp_path / "none.yaml")


def test_views_are_frozen(ran: hpotune.Study) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ran.trials[0].number = 5  # type: ignore[misc]


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, hpotune\n"
        "hpotune.Study, hpotune.errors\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "optuna", "pydantic", "torch", "yaml", "typer", "rich"} & set(done.stdout.split())

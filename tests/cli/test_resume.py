"""`resume`, `extend` and `retry` on studies that really run, and code that is edited in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hpotune.cli import main
from hpotune.records.trial import TrialRow
from hpotune.storage import TrialQueue
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder, folder_of

STUDY = """\
name: bowl
python: own.py:bowl
params: {x: {float: [0, 1]}}
score: {objective: {metric: value, direction: minimize}}
budget: {trials: 3, parallel: 1, max_equal_failures: 99}
"""
PROGRAM = """\
import time
from pathlib import Path
import beside
def bowl(x):
    while not Path("go").exists():
        time.sleep(0.05)
    return x + beside.ADDS
"""
ENV = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}


def written(home: Path) -> Path:
    """A study whose trials wait for a file and then return x plus a constant of another module."""
    (home / "own.py").write_text(PROGRAM)
    (home / "beside.py").write_text("ADDS = 0\n")
    (home / "go").touch()
    (home / "study.yaml").write_text(STUDY)
    return home / "study.yaml"


@pytest.fixture
def file(tmp_path) -> Path:
    """A study that has not run yet."""
    return written(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished study; tests do not change it."""
    file = written(tmp_path_factory.mktemp("finished"))
    subprocess.run(command("run", file), check=True, env=ENV, capture_output=True)
    return file


class Output(NamedTuple):
    """What a verb printed."""

    stdout: str
    stderr: str


@pytest.fixture
def call(capsys, monkeypatch) -> Callable[..., Output]:
    """Runs a verb in this process and checks its exit code."""
    for key in [key for key in os.environ if key.startswith("SLURM_")]:
        monkeypatch.delenv(key)

    def call(verb: str, *words: object, code: int = 0) -> Output:
        monkeypatch.setattr(sys, "argv", ["hpotune", verb, *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        output = Output(*capsys.readouterr())
        assert int(stop.value.code or 0) == code, output.stderr
        return output

    return call


@pytest.fixture
def json_of(call) -> Callable[..., Any]:
    """What a verb prints with --json."""
    return lambda verb, *words: json.loads(call(verb, *words, "--json").stdout)


def command(verb: str, *words: object) -> list[str]:
    return [sys.executable, "-m", "hpotune", verb, *map(str, words)]


def rows(file: Path) -> list[TrialRow]:
    folder = folder_of(file)
    return TrialQueue.open(folder.provenance().store, folder.load(), read_only=True).rows()


def adds(file: Path) -> list[int]:
    """The constant that each finished trial added."""
    return [
        round(row.values[0] - float(row.params["params.x"])) for row in rows(file) if row.state == "finished"
    ]


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.1)


def in_background(file: Path, verb: str, *words: object) -> subprocess.Popen[str]:
    """A process of a verb, whose first trial runs."""
    process = subprocess.Popen(
        command(verb, *words), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENV
    )
    until(lambda: (file.parent / "bowl" / "trials" / "0" / "spec.json").exists())
    return process


def test_extended_study_resumes_with_new_code(file, call, json_of):
    call("run", file)
    (file.parent / "beside.py").write_text("ADDS = 100\n")
    assert json_of("extend", file, "--trials", "+2")["changed"] == {"trials": [3, 5]}
    resumed = call("resume", file)
    assert "the code changed since the earlier trials (beside.py)" in resumed.stderr
    assert adds(file) == [0, 0, 0, 100, 100]
    specs = [
        json.loads((file.parent / "bowl" / "trials" / str(n) / "spec.json").read_text()) for n in range(5)
    ]
    assert [spec["code"] for spec in specs].count(specs[0]["code"]) == 3
    assert specs[3]["code"] == specs[4]["code"] != specs[0]["code"]


def test_grid_extension_stops_at_its_points(file, call, json_of):
    text = file.read_text() + "search: {algorithm: grid, options: {points: 3}}\n"
    file.write_text(text)
    call("run", file)
    refused = call("extend", file, "--trials", "+1", code=2).stderr
    assert "the grid has 3 points, fewer than the 4 trials of the budget" in refused
    assert json_of("extend", file, "--max-failed", "9")["changed"]  # nothing was written of the first
    (file.parent / "bowl" / "extension.json").write_text('{"trials": {"to": 4, "over": 3}}')
    assert "the grid has 3 points" in call("resume", file.parent / "bowl", code=2).stderr


def test_edit_does_not_change_running_workers(file):
    (file.parent / "go").unlink()
    run = in_background(file, "run", file)
    (file.parent / "beside.py").write_text("ADDS = 100\n")
    (file.parent / "own.py").write_text("def bowl(x):\n    return -7\n")
    (file.parent / "go").touch()
    assert run.wait(120) == 0
    assert adds(file) == [0, 0, 0]


def test_worker_runs_the_given_snapshot(file, call):
    call("run", file)
    (old,) = [path.name for path in (file.parent / "bowl" / "code").glob("[0-9a-f]*") if path.is_dir()]
    (file.parent / "beside.py").write_text("ADDS = 100\n")
    call("extend", file, "--trials", "+2")
    for words in (["--trials", "1", "--code", old], []):
        subprocess.run(command("worker", file.parent / "bowl", *words), check=True, env=ENV)
    assert adds(file) == [0, 0, 0, 0, 100]
    assert (
        "holds no such snapshot" in call("worker", file.parent / "bowl", "--code", "nothing", code=2).stderr
    )


def test_running_study_is_extended(file, json_of):
    (file.parent / "go").unlink()
    run = in_background(file, "run", file)
    extended = json_of("extend", file, "--trials", "+3")
    assert extended["running"] == 1
    assert "continue with it" in extended["next"]
    (file.parent / "go").touch()
    assert run.wait(120) == 0
    assert adds(file) == [0] * 6


def test_unchanged_file_keeps_an_extension(file, call):
    call("run", file)
    call("extend", file, "--trials", "4")
    call("run", file)
    assert len(rows(file)) == 4
    file.write_text(STUDY.replace("trials: 3", "trials: 2"))
    again = call("run", file)
    assert "budget.trials=2 in the study file is not used: it was extended to 4" in again.stderr
    assert "it was extended to 4" in call("check", file).stderr
    file.write_text(STUDY.replace("trials: 3", "trials: 6"))
    call("resume", file)
    assert len(rows(file)) == 6


def test_wrong_extension_changes_nothing(finished, call):
    for words, says in (
        (["--trials", "2"], "--trials 2: 3 trials have finished; needs 3 or more"),
        (["--trials", "+x", "--parallel", "2"], "--trials +x: needs +20 or 70"),
        (["--gpu-hours", "+5"], "--gpu-hours +5: budget.gpu_hours has no limit"),
        ([], "extend needs a limit to raise"),
    ):
        (line,) = call("extend", finished, *words, code=2).stderr.splitlines()
        assert says in line
    assert not (finished.parent / "bowl" / "extension.json").exists()


def test_resume_continues_a_cancelled_run(file, call):
    (file.parent / "go").unlink()
    run = in_background(file, "run", file)
    call("cancel", file)
    run.send_signal(signal.SIGINT)
    assert run.wait(120) != 0
    assert (file.parent / "bowl" / "jobs" / "cancelled").exists()
    (file.parent / "go").touch()
    call("resume", file.parent / "bowl")
    assert adds(file) == [0] * 3
    assert not (file.parent / "bowl" / "jobs" / "cancelled").exists()


def test_resume_of_finished_study_advises(finished, json_of):
    over = json_of("resume", finished)
    assert over["over"] == "3 trials finished"
    assert "hpotune extend" in over["next"]
    assert len(rows(finished)) == 3


def test_resume_needs_a_study(file, call):
    assert "holds no study" in call("resume", file, code=2).stderr
    assert "exclude each other" in call("resume", file, "--here", "--slurm", code=2).stderr


def test_resume_uses_the_former_backend(file, call, monkeypatch):
    call("run", file)
    call("extend", file, "--trials", "+1")
    folder = StudyFolder(path=file.parent / "bowl")
    job = {"id": "7", "kind": "worker", "count": 1, "throttle": 1, "trials": None}
    write_atomic(folder.jobs / "7" / "job.json", json.dumps(job))
    with monkeypatch.context() as without_slurm:
        without_slurm.setenv("PATH", str(Path(sys.executable).parent))
        for target in (file, folder.path):
            assert "Slurm is not installed here" in call("resume", target, code=3).stderr
    call("resume", file, "--here")
    assert len(rows(file)) == 4


def test_failed_trials_are_retried(file, call, json_of):
    (file.parent / "own.py").write_text("def bowl(x):\n    raise ValueError('bug')\n")
    file.write_text(STUDY.replace("trials: 3", "trials: 3, max_failed: 1"))
    call("run", file, code=1)
    before = rows(file)
    assert [row.state for row in before if row.state != "waiting"] == ["failed", "failed"]
    assert "fix the cause, then hpotune retry" in call("resume", file, code=1).stdout
    for words, says in (
        (["7"], "trial 7: no such trial"),
        (["2"], "trial 2: has not failed (state waiting)"),
        (["--cause", "ooom"], "--cause ooom: is not a cause of failure; did you mean 'oom'?"),
    ):
        assert says in call("retry", file, *words, code=2).stderr
    assert json_of("retry", file, "--cause", "oom")["retried"] == {}
    (file.parent / "own.py").write_text(PROGRAM)
    retried = call("retry", file, "1", "--cause", "user")
    assert "the code changed since the earlier trials (" in retried.stderr
    assert "trial 1 (user: ValueError: bug (at own.py:2)) -> trial " in retried.stdout
    assert "hpotune resume" in retried.stdout
    mapping = json_of("retry", file)["retried"]
    assert set(mapping) == {"0"}
    assert "trial 1: has been retried already" in call("retry", file, "1", code=2).stderr
    call("resume", file)
    after = {row.number: row for row in rows(file)}
    again = {row.retry_of: row.params for row in after.values() if row.retry_of is not None}
    assert again == {row.number: row.params for row in before if row.state == "failed"}
    assert after[mapping["0"]].retry_of == 0
    assert [row.state for row in after.values()].count("finished") == 3


def test_edited_file_is_another_study(finished, call):
    says = "holds a study whose `params` differs from this file's"
    assert "note:" not in call("status", finished).stderr
    edited = finished.parent / "edited.yaml"
    edited.write_text(STUDY.replace("[0, 1]", "[0, 2]"))
    for verb, code in (("status", 0), ("check", 0), ("run", 2)):
        assert says in call(verb, edited, code=code).stderr
    assert says not in call("status", finished.parent / "bowl").stderr


def test_edited_rule_applies_without_trials(file, call, json_of):
    """The rule of a finished study: `best` names the change, `resume` applies it, no trial is added."""
    file.write_text(STUDY + "best: {maximize: value}\n")
    call("run", file)
    first = json_of("best", file)
    assert first["rule"] == {"metric": "value", "direction": "maximize", "subject_to": [], "stored": True}
    file.write_text(STUDY + 'best: {minimize: value, subject_to: "seconds >= 0"}\n')
    assert "the rule `best` of study.yaml has changed" in call("best", file).stderr
    assert json_of("best", file, "--rule", "minimize: value")["rule"]["stored"] is False
    assert json_of("best", file)["best"] == first["best"]
    assert "now applies" in call("resume", file).stderr
    after = json_of("best", file)
    assert after["rule"]["subject_to"] == ["seconds >= 0"]
    assert after["best"]["values"]["value"] < first["best"]["values"]["value"]
    assert after["finished"] == first["finished"]

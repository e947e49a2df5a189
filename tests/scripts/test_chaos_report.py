"""The report of scripts/chaos is JSON whatever happened to the trials, and its checks can fail."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

import pytest

from hpotune.records.trial import Attempt, Failure, TrialRow, Worker

FOLDER = Path(__file__).parents[2] / "scripts" / "chaos"
WORKER = Worker(job="7_0", host="n1", pid=1)
POINT = {"params.x": 0.5, "params.y": 0.25}


@pytest.fixture
def check(monkeypatch):
    """scripts/chaos/check.py; its neighbours have names that others might use, so they are forgotten again."""
    monkeypatch.syspath_prepend(FOLDER)
    names = [file.stem for file in FOLDER.glob("*.py")]
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules and name != "__main__"}
    yield importlib.import_module("check")
    for name in set(names) - {"__main__"}:
        sys.modules.pop(name, None)
    sys.modules.update(before)


def runs(check: ModuleType, *more: TrialRow):
    done = Attempt(worker=WORKER, start=100.0, end=110.0, outcome="finished", gpus=1)
    value = check.objective.value({"x": 0.5, "y": 0.25})
    row = TrialRow(number=0, kind="trial", state="finished", params=POINT, values=(value,), attempts=(done,))
    return row, check.Run(rows=[row], accounts=[]), check.Run(rows=[row, *more], accounts=[])


def failed(result) -> list[str]:
    return [name for name, found in result["checks"].items() if not found["ok"]]


def test_undisturbed_run_passes(check):
    _, calm, same = runs(check)
    assert failed(check.report(calm, same, trials=1, faults=0, waste=1.3)) == []
    ended = Attempt(worker=WORKER, start=100.0, end=105.0, outcome="failed", cause="killed", gpus=1)
    why = Failure(cause="killed", message="its job has left the queue")
    _, calm, struck = runs(
        check, TrialRow(number=1, kind="trial", state="failed", params=POINT, failure=why, attempts=(ended,))
    )
    result = json.loads(json.dumps(check.report(calm, struck, trials=1, faults=0, waste=2)))
    assert result["rows"][1]["failure"] == {"cause": "killed", "message": why.message}
    assert failed(result) == ["every cause has its fault"]


@pytest.mark.parametrize(
    ("at", "struck", "excused"), [(103.0, True, True), (103.0, False, False), (150.0, True, False)]
)
def test_forgotten_new_job_is_excused(check, at, struck, excused):
    faults = sys.modules["faults"]
    message = "its job 7_0 is gone from the queue on n1"
    row, _, _ = runs(check)
    early = Attempt(worker=WORKER, start=100.0, end=140.0, outcome="finished", gpus=1)
    lost = replace(early, start=at - 1, end=at + 5, outcome="failed", cause="killed", message=message)
    fault = faults.Fault(kind="slurmctld", at=at, until=at + 2, struck=struck)
    rows = [replace(row, attempts=(early, lost))]
    storm = check.Run(rows=rows, accounts=[], faults=[fault], submitted={"7": 99.0})
    assert check.forgotten(storm, lost) is excused
    assert bool(check.unexplained(storm)) is not excused


def test_wrong_results_are_detected(check):
    row, calm, _ = runs(check)
    wrong = check.Run(rows=[replace(row, values=(0.5,))], accounts=[])
    assert failed(check.report(calm, wrong, trials=1, faults=0, waste=1.3)) == [
        "every value is the undisturbed one"
    ]
    lost = check.Run(rows=[replace(row, number=1, state="running", values=())], accounts=[])
    assert set(failed(check.report(calm, lost, trials=1, faults=1, waste=1.3))) == {
        "at least 1 faults struck",
        "exactly 1 trials finished",
        "no number is missing",
        "none is running or waiting",
    }
    twice = check.Run(rows=[row, row], accounts=[])
    assert "no number stands twice" in failed(check.report(calm, twice, trials=1, faults=0, waste=1.3))


@pytest.mark.parametrize(
    ("kind", "excused"), [("scancel", True), ("cancelled", True), ("kill_worker", False)]
)
def test_resume_needs_users_cancel(check, kind, excused):
    _, calm, same = runs(check)
    fault = sys.modules["faults"].Fault(kind=kind, at=500.0, until=501.0)
    storm = replace(same, faults=[fault], resumes=1)
    result = check.report(calm, storm, trials=1, faults=1, waste=1.3)
    assert failed(result) == ([] if excused else ["it was resumed only after a user's cancel"])
    assert "resumed after a user's cancel: 1" in check.as_text(result)


@pytest.mark.parametrize(
    ("state", "said"), [("cancelled", ["resume"]), ("idle", ["submit"]), ("cancelling", []), ("running", [])]
)
def test_user_continues_cancelled_study(check, monkeypatch, state, said):
    study = importlib.import_module("study")
    verbs: list[str] = []

    class Testbed:
        crashes: tuple[()] = ()

        def slurm(self, *command: str) -> str:
            return ""

        def hpotune(self, verb: str, *_: object) -> CompletedProcess[str]:
            verbs.append(verb)
            return CompletedProcess([verb], 0, json.dumps({"state": state, "jobs": []}), "")

    one = study.Study(testbed=Testbed(), file=Path("/x/storm.yaml"), trials=1, minutes=1)
    assert not one._look()
    assert verbs == ["status", *said]
    assert (one.resumes, one.submits) == (said == ["resume"], said == ["submit"])

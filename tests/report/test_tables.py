"""What people read says what the numbers say."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path

from rich.console import Console

from hpotune.plan.next import JobRow
from hpotune.report import summary, tables
from hpotune.study.config import StudyConfig
from hpotune.study.folder import StudyFolder
from hpotune.study.trial import Failure, TrialRow, Worker

NOW = datetime(2026, 11, 20, 12)
CONFIG = StudyConfig.model_validate(
    {
        "name": "s",
        "model": {"path": "m"},
        "data": {"path": "d"},
        "score": {"objective": {"metric": "acc"}},
        "budget": {"trials": 4},
    }
)


def finished(number: int, value: float, kind: str = "trial", stderr: float | None = 0.01) -> TrialRow:
    params = {} if kind == "baseline" else {"params.x": number}
    return TrialRow(
        number=number, kind=kind, state="finished", params=params, values=(value,), stderrs=(stderr,)
    )


def running(number: int, job: str) -> TrialRow:
    worker = Worker(job=job, host="n1", pid=1)
    return TrialRow(number=number, kind="trial", state="running", params={}, worker=worker)


def text(renderable: object) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def best(tmp_path: Path, *rows: TrialRow) -> str:
    return text(tables.best(summary.best(StudyFolder(path=tmp_path), CONFIG, rows)))


def test_a_clear_gain_over_the_baseline_is_called_so(tmp_path: Path) -> None:
    said = best(tmp_path, finished(0, 0.5, "baseline"), finished(1, 0.8))
    assert "beats the untouched base model (0.5 ± 0.01) by 0.3 ± 0.014: more than the error allows" in said


def test_a_gain_within_the_error_is_not_called_one(tmp_path: Path) -> None:
    assert "does NOT beat" in best(tmp_path, finished(0, 0.5, "baseline"), finished(1, 0.51))


def test_without_a_baseline_nothing_is_claimed(tmp_path: Path) -> None:
    assert "no baseline was scored" in best(tmp_path, finished(1, 0.51))


def test_a_function_of_ones_own_has_no_base_model_to_speak_of(tmp_path: Path) -> None:
    own = CONFIG.model_copy(update={"model": None})
    said = text(tables.best(summary.best(StudyFolder(path=tmp_path), own, [finished(1, 0.5)])))
    assert "base" not in said


def test_the_baseline_is_never_the_best(tmp_path: Path) -> None:
    assert "trial 1" in best(tmp_path, finished(0, 0.9, "baseline"), finished(1, 0.5)).splitlines()[0]


def status(tmp_path: Path, rows: list[TrialRow], jobs: list[JobRow], lost: list[int]) -> dict:
    return summary.status(StudyFolder(path=tmp_path), CONFIG, rows, jobs, lost, now=NOW)


def test_a_running_trial_of_a_dead_worker_is_lost_and_its_slot_is_left(tmp_path: Path) -> None:
    told = status(tmp_path, [finished(0, 0.1), running(1, "5_1")], [JobRow(id="5_1", state="FAILED")], [1])
    assert (told["trials"]["running"], told["trials"]["lost"], told["trials"]["left"]) == (0, 1, 3)
    assert told["state"] == "idle"


def test_a_study_is_queued_while_its_jobs_wait_and_says_why_in_words(tmp_path: Path) -> None:
    told = status(tmp_path, [], [JobRow(id="5_0", state="PENDING", reason="JobArrayTaskLimit")], [])
    assert told["state"] == "queued"
    assert "as many as budget.parallel allows are running" in text(tables.status(told))


def test_a_running_job_names_its_trial(tmp_path: Path) -> None:
    told = status(tmp_path, [running(2, "5_0")], [JobRow(id="5_0", state="RUNNING")], [])
    assert [job["trial"] for job in told["jobs"]] == [2]


def test_failures_are_counted_by_cause(tmp_path: Path) -> None:
    oom = Failure(cause="oom", message="m")
    rows = [TrialRow(number=n, kind="trial", state="failed", params={}, failure=oom) for n in (1, 2)]
    told = status(tmp_path, rows, [], [])
    assert told["failures"] == {"oom": 2}
    assert "failed: 2 x oom" in text(tables.status(told))

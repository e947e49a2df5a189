"""What people read says what the numbers say."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import Attempt, Failure, TrialRow, Worker
from hpotune.report import summary, tables
from hpotune.workspace.folder import StudyFolder

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


def test_a_table_of_trials_shows_attempts_and_repeats_only_where_there_are_some() -> None:
    plain = [summary.trial(CONFIG.score.objective, finished(1, 0.5))]
    assert "attempts" not in text(tables.trials(plain))
    worker = Worker(job="5_0", host="n1", pid=1)
    paused = Attempt(worker=worker, start=0, end=60, outcome="paused", cause="preempted", message="made room")
    row = replace(
        finished(2, 0.5), attempts=(paused, replace(paused, end=30, outcome="finished")), retry_of=1
    )
    failed = TrialRow(
        number=3,
        kind="trial",
        state="failed",
        params={},
        failure=Failure(cause="oom", message="too big"),
        forgiven=True,
    )
    said = text(tables.trials([summary.trial(CONFIG.score.objective, r) for r in (row, failed)]))
    assert (
        " ".join(said.splitlines()[0].split()) == "trial state acc params.x min attempts retry of cause why"
    )
    assert said.splitlines()[1].split() == ["2", "finished", "0.5", "±", "0.01", "2", "1.5", "2", "1"]
    assert said.splitlines()[2].split() == ["3", "failed", "0", "oom", "too", "big", "(forgiven)"]


def test_a_trial_that_went_back_in_line_is_paused() -> None:
    worker = Worker(job="5_0", host="n1", pid=1)
    attempt = Attempt(worker=worker, start=0, end=60, outcome="paused")
    row = TrialRow(number=2, kind="trial", state="waiting", params={}, attempts=(attempt,))
    assert summary.trial(CONFIG.score.objective, row)["state"] == "paused"

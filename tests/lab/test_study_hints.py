"""Hints on a study: each case that a student meets, with its next step, and what is good."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hpotune.config.space.range_parsing import parse_range
from hpotune.lab.student_study import ReadStudy, read_all
from hpotune.lab.study_hints import Hint, needs_log, study_hints, top_share
from hpotune.records.trial import Attempt, Worker
from tests.fixtures.report_rows import failed, finished, running
from tests.fixtures.report_studies import NOW, OWN, START, StudyData, fine_tuning, study_of


def hints_of(made: StudyData) -> dict[str, Hint]:
    """The first hint of each kind."""
    read = ReadStudy(
        student="ann", path=made.folder.path, folder=made.folder, study=made.study, rows=tuple(made.rows)
    )
    return {hint.kind: hint for hint in reversed(study_hints(read, now=NOW))}


def own(home: Path, rows: list[Any], **sections: Any) -> dict[str, Hint]:
    """The hints on a study of a function with these trials."""
    return hints_of(study_of(home, rows, **{**OWN, **sections}))


@pytest.mark.parametrize(
    ("rows", "level", "text", "step"),
    [
        ([], "problem", "no trial has finished", "hpotune resume"),
        ([running(0)], "hint", "no trial has finished (1 running)", "hpotune status"),
        ([finished(0), finished(1)], "hint", "2 of 30 trials have finished", "hpotune resume"),
        ([finished(n) for n in range(30)], "good", "30 of 30 trials have finished", ""),
    ],
)
def test_run_hint_says_how_far(tmp_path: Path, rows: list[Any], level: str, text: str, step: str) -> None:
    hint = own(tmp_path, rows)["run"]
    assert (hint.level, hint.text) == (level, text)
    assert hint.next_step.startswith(step)
    assert bool(hint.next_step) == bool(step)


@pytest.mark.parametrize(
    ("name", "range_", "needed"),
    [
        ("train.learning_rate", {"float": [1e-5, 1e-2]}, True),
        ("train.learning_rate", {"float": [1e-5, 1e-2], "log": True}, False),
        ("params.lr", {"float": [0.0, 1.0]}, True),
        ("params.lr", {"float": [0.1, 0.5]}, False),
        ("params.x", {"float": [0.0, 1.0]}, False),
        ("params.x", {"float": [0.01, 1.0]}, True),
        ("params.x", {"float": [-3.0, 3.0]}, False),
        ("lora.r", {"int": [4, 256]}, True),
        ("params.layers", {"int": [1, 12]}, False),
        ("params.lr", {"normal": [0.1, 0.02]}, False),
        ("params.lr", {"choice": [0.001, 0.1]}, False),
    ],
)
def test_plain_scale_is_seen(name: str, range_: dict[str, Any], needed: bool) -> None:
    assert needs_log(parse_range(range_, tuple(name.split(".")))) is needed


def test_scale_hint_writes_the_range(tmp_path: Path) -> None:
    params = {"lr": {"float": [1e-5, 1e-2]}, "layers": {"int": [1, 4]}}
    hint = own(tmp_path / "plain", [], params=params)["scale"]
    assert hint.level == "hint"
    assert "nine of ten values lie above 0.001009" in hint.text
    assert "{float: [1e-05, 0.01], log: true}" in hint.next_step
    params["lr"]["log"] = True  # type: ignore[assignment]
    assert own(tmp_path / "log", [], params=params)["scale"].level == "good"


def test_share_follows_the_formula() -> None:
    assert top_share(59) == pytest.approx(0.05, abs=0.001)
    assert top_share(29) <= 0.1 < top_share(28)
    assert top_share(0) == 1.0


def test_few_trials_are_too_few(tmp_path: Path) -> None:
    few = own(tmp_path / "few", [finished(n) for n in range(8)])["trials"]
    assert few.level == "hint"
    assert "among the best 31 % of the space" in few.text
    assert few.next_step.endswith("--trials +21")
    assert own(tmp_path / "many", [finished(n) for n in range(29)])["trials"].level == "good"


def test_baseline_decides_the_claim(tmp_path: Path) -> None:
    better = hints_of(fine_tuning(tmp_path / "better"))
    assert better["baseline"].level == "good"
    assert "better than the base model" in better["baseline"].text
    rows = fine_tuning(tmp_path / "equal").rows
    diverged = [
        row for row in rows if row.params.get("train.learning_rate", 1.0) > 1e-3 or row.kind == "baseline"
    ]
    hint = hints_of(replace(fine_tuning(tmp_path / "worse"), rows=diverged))["baseline"]
    assert hint.level == "problem"
    assert "not significantly better" in hint.text
    unknown = [replace(row, stderrs=(None,)) for row in rows if row.values]
    made = study_of(tmp_path / "unknown", unknown, score={"objective": {"metric": "eval_loss"}})
    assert "use a metric with a standard error" in hints_of(made)["baseline"].next_step
    none = [row for row in rows if row.kind != "baseline"]
    hint = hints_of(replace(fine_tuning(tmp_path / "none"), rows=none))["baseline"]
    assert "the base model was not scored" in hint.text


def test_equal_trials_are_named(tmp_path: Path) -> None:
    clear = [finished(0, 0.1), *(finished(n, 0.9) for n in range(1, 4))]
    assert own(tmp_path / "clear", clear)["ties"].level == "good"
    hint = own(tmp_path / "tied", [finished(0, 0.100), finished(1, 0.101), finished(2, 0.9)])["ties"]
    assert hint.text == "trial 0 is the best, but not significantly better than trial 1"
    assert "repeats" in hint.next_step
    unknown = own(tmp_path / "unknown", [finished(0, 0.1, stderr=None), finished(1, 0.2, stderr=None)])[
        "ties"
    ]
    assert "return loss_stderr beside loss" in unknown.next_step


def test_best_at_an_end_is_seen(tmp_path: Path) -> None:
    rows = [finished(n, 0.1 + n, params={"params.x": 0.99 - n / 10}) for n in range(9)]
    hint = own(tmp_path / "end", rows)["end"]
    assert hint.text == "the best trial has params.x = 0.99, at the upper end of its range (1)"
    inner = [finished(n, 0.1 + n, params={"params.x": 0.5 + n / 30}) for n in range(9)]
    assert "end" not in own(tmp_path / "inner", inner)


@pytest.mark.parametrize(("gap_s", "level"), [(1, "good"), (30, "hint")])
def test_overhead_comes_from_the_times(tmp_path: Path, gap_s: int, level: str) -> None:
    def times(number: int) -> Attempt:
        at = START + number * (10 + gap_s)
        return Attempt(worker=Worker(job="1", host="n1", pid=1), start=at, end=at + 10, outcome="finished")

    rows = [finished(n, attempts=(times(n),)) for n in range(6)]
    one_each = {"budget": {"trials": 30, "parallel": 1}, "execution": {"trials_per_job": 1}}
    hint = own(tmp_path, rows, **one_each)["overhead"]
    assert hint.level == level
    assert "10 s each" in hint.text
    assert ("trials_per_job: auto" in hint.next_step) == (level == "hint")


@pytest.mark.parametrize(
    ("sections", "step"),
    [({}, "{place: hyperqueue}"), ({"execution": {"trials_per_job": 1}}, "{trials_per_job: auto}")],
)
def test_short_trials_get_another_form(tmp_path: Path, sections: dict[str, Any], step: str) -> None:
    def times(number: int) -> Attempt:
        at = START + number * 9
        return Attempt(worker=Worker(job="1", host="n1", pid=1), start=at, end=at + 1, outcome="finished")

    rows = [finished(n, attempts=(times(n),)) for n in range(6)]
    parallel = {"budget": {"trials": 30, "parallel": 1}}
    assert step in own(tmp_path, rows, **parallel, **sections)["overhead"].next_step


def test_loading_counts_as_overhead(tmp_path: Path) -> None:
    worker = Worker(job="1", host="n1", pid=1)
    times = [START + 10 * n for n in range(4)]
    attempts = [Attempt(worker=worker, start=at, end=at + 10, outcome="finished") for at in times]
    rows = [finished(n, attempts=(one,)) for n, one in enumerate(attempts)]
    made = study_of(tmp_path, rows, **{**OWN, "budget": {"trials": 30, "parallel": 1}})
    assert hints_of(made)["overhead"].level == "good"
    (made.folder.jobs / "1").mkdir(parents=True)
    spans = [
        {"job": "1", "trial": n, "phase": "load", "start": START + 10 * n, "end": START + 10 * n + 8}
        for n in range(4)
    ]
    (made.folder.jobs / "1" / "spans-1.jsonl").write_text("\n".join(map(json.dumps, spans)))
    hint = hints_of(made)["overhead"]
    assert hint.level == "hint"
    assert "trials ran in 20 % of the time" in hint.text


def test_failures_are_counted_by_cause(tmp_path: Path) -> None:
    hint = own(tmp_path, [finished(0), finished(1), failed(2), failed(3), failed(4, "user")])["failures"]
    assert hint.level == "problem"
    assert hint.text == "3 trials failed: 2 x oom, 1 x user; trial 2: m"
    assert "memory" in hint.next_step
    assert f"hpotune why {tmp_path / 'study'} 2" in hint.next_step


def test_opening_before_the_choice_is_seen(tmp_path: Path) -> None:
    made = fine_tuning(tmp_path)
    assert hints_of(made)["sealed test"].level == "good"
    (made.folder.path / "test").mkdir()
    file = made.folder.path / "test" / "openings.json"
    times = [row.attempts[0].start for row in made.rows if row.attempts and row.kind == "trial"]

    def opened(*at: float) -> Hint:
        one = {"trials": [3], "user": "ann", "host": "n1", "version": "1", "commit": None}
        file.write_text(json.dumps({"openings": [{**one, "opened": when} for when in at]}))
        return hints_of(made)["sealed test"]

    early = opened(min(times) + 1)
    assert early.level == "problem"
    assert "trials started after the sealed test was opened" in early.text
    late = max(times) + timedelta(days=1).total_seconds()
    assert opened(late).text == "the sealed test was opened once, after the search"
    assert opened(late, late + 9).level == "hint"


def test_real_study_gets_hints(two_studies: list[Path]) -> None:
    well, failing = (study_hints(read, now=NOW) for read in read_all(two_studies))
    assert {hint.kind: hint.level for hint in well}["run"] == "good"
    assert {hint.kind: hint.level for hint in well}["failures"] == "good"
    said = next(hint for hint in failing if hint.kind == "failures")
    assert "three layers are not supported" in said.text
    assert all(hint.next_step for hint in (*well, *failing) if hint.level != "good")
    assert all("\n" not in hint.text + hint.next_step for hint in (*well, *failing))

"""The status of a study: counts, what runs, why jobs wait, cost and forecast, in JSON and in words."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.jobs import JobRow
from hpotune.records.trial import Attempt, Climbed, Failure, TrialRow, Worker
from hpotune.report import status_table, summary
from hpotune.workspace.folder import StudyFolder

NOW = datetime(2026, 11, 20, 12)
UNIX = NOW.timestamp()


def config(**sections: Any) -> StudyConfig:
    plain = {
        "name": "s",
        "python": "f.py:f",
        "params": {"x": 1},
        "score": {"objective": {"metric": "acc", "direction": "maximize"}},
        "budget": {"trials": 10, "parallel": 2},
        "resources": {"gpus": 2},
    }
    return StudyConfig.model_validate(plain | sections)


def attempt(outcome: str = "finished", *, host: str = "n1", seconds: float = 3600, **more: Any) -> Attempt:
    worker = Worker(job="5_0", host=host, pid=1)
    return Attempt(
        worker=worker, start=UNIX - 7200, end=UNIX - 7200 + seconds, outcome=outcome, gpus=2, **more
    )


def finished(number: int, value: float = 0.5) -> TrialRow:
    return TrialRow(
        number=number,
        kind="trial",
        state="finished",
        params={},
        values=(value,),
        stderrs=(0.01,),
        attempts=(attempt(),),
    )


def running(number: int, job: str = "5_0", *, host: str = "n1", seconds: float = 600) -> TrialRow:
    worker = Worker(job=job, host=host, pid=1)
    return TrialRow(
        number=number, kind="trial", state="running", params={}, worker=worker, start=UNIX - seconds
    )


def failed(number: int, cause: str = "oom") -> TrialRow:
    failure = Failure.model_validate({"cause": cause, "message": "m"})
    return TrialRow(number=number, kind="trial", state="failed", params={}, failure=failure)


def paused(number: int, cause: str = "preempted") -> TrialRow:
    ended = attempt("paused", seconds=1800, cause=cause)
    return TrialRow(number=number, kind="trial", state="waiting", params={}, attempts=(ended,))


def told(
    rows: list[TrialRow], jobs: list[JobRow] | None = None, lost: list[int] | None = None, **sections: Any
) -> dict[str, Any]:
    place = StudyFolder(path=Path("/studies/s"))
    return summary.status(place, config(**sections), rows, jobs or [], lost or [], now=NOW)


def text(found: dict[str, Any]) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(status_table.status(found, now=NOW))
    return console.export_text()


def test_trials_are_counted_by_state_and_the_counts_add_up() -> None:
    found = told([finished(0), running(1), running(2), failed(3), paused(4), running(5)], lost=[5])
    assert found["trials"] == {
        "budget": 10, "finished": 1, "running": 2, "waiting": 5, "paused": 1, "lost": 1, "failed": 1, "left": 7,
        "stopped": 0, "resting": 0,
    }  # fmt: skip
    assert "s: running (1 of 10 finished, 2 running, 5 waiting, 1 paused, 1 failed, 1 lost)" in text(found)


def test_a_running_trial_of_a_dead_worker_is_lost_and_its_slot_is_left() -> None:
    found = told([finished(0), running(1, "5_1")], [JobRow(id="5_1", state="FAILED")], [1])
    assert (found["trials"]["running"], found["trials"]["lost"], found["trials"]["left"]) == (0, 1, 9)
    assert (found["state"], found["running_trials"]) == ("idle", [])


def test_running_trials_say_where_and_for_how_long() -> None:
    found = told([replace(running(3, host="n7", seconds=7260), attempts=(attempt("paused"),))])
    one = {"number": 3, "host": "n7", "job": "5_0", "attempt": 2, "rung": None, "seconds": 7260.0}
    assert found["running_trials"] == [one]
    assert "3      2 h 01 min  n7  5_0  2" in text(found)


def test_a_study_is_queued_while_its_jobs_wait_and_says_why_in_words_and_until_when() -> None:
    soon = (NOW + timedelta(hours=1)).isoformat()
    found = told(
        [],
        [JobRow(id=f"5_{n}", state="PENDING", reason="JobArrayTaskLimit", estimate=soon) for n in range(8)],
    )
    assert found["state"] == "queued"
    assert (found["jobs"][0]["estimate"], found["jobs"][0]["reason"]) == (soon, "JobArrayTaskLimit")
    assert "as budget.parallel allows" in found["jobs"][0]["why"]
    line = next(line for line in text(found).splitlines() if "PENDING" in line)
    assert line.startswith("5_0-7")
    assert line.rstrip().endswith("13:00")


def test_a_running_job_names_its_trial() -> None:
    found = told([running(2, "5_0")], [JobRow(id="5_0", state="RUNNING"), JobRow(id="5_1", state="RUNNING")])
    assert [job["trial"] for job in found["jobs"]] == [2, None]


def test_ten_thousand_jobs_are_a_few_lines() -> None:
    jobs = [JobRow(id=f"7_{n}", state="COMPLETED", exit_code="0:0") for n in range(9_000)]
    jobs += [JobRow(id=f"8_{n}", state="RUNNING") for n in range(500)]
    jobs += [JobRow(id=f"9_{n}", state="PENDING", reason="Priority") for n in range(500)]
    rows = [running(n, f"8_{n}") for n in range(500)]
    said = text(told(rows, jobs)).splitlines()
    assert len(said) < 50
    assert any(line.startswith("…") and "more" in line for line in said)


def test_failures_and_interruptions_are_counted_by_cause() -> None:
    found = told([failed(1), failed(2), failed(3, "nan"), paused(4), paused(5)])
    assert (found["failures"], found["interrupted"]) == ({"oom": 2, "nan": 1}, {"preempted": 2})
    assert "failed: 2 x oom, 1 x nan" in text(found)
    assert "put back in line: 2 x preempted" in text(found)


def test_the_best_so_far_has_its_error() -> None:
    assert "best so far: trial 2, acc 0.75 ± 0.01" in text(told([finished(1), finished(2, 0.75)]))


def test_gpu_hours_count_every_attempt_and_what_runs_now() -> None:
    found = told([finished(0), paused(1), running(2, seconds=1800)])
    assert found["gpu_hours"] == pytest.approx(2 * (1 + 0.5 + 0.5))
    assert "4.00 GPU-hours used" in text(found)


def test_the_forecast_puts_what_is_left_side_by_side() -> None:
    # an hour a trial, two at a time; one runs for 10 min, one did half an hour, four more: 0.83 + 0.5 + 4 h of work
    rows = [finished(0), finished(1), finished(2), finished(3), running(4), paused(5)]
    ahead = told(rows)["forecast"]
    assert ahead["trials_left"] == 6
    assert ahead["gpu_hours"] == pytest.approx(2 * (50 / 60 + 0.5 + 4), abs=1e-3)
    # place A: 50 min + 60 + 60 = 170; place B: 30 + 60 + 60 = 150 min
    assert ahead["seconds"] == pytest.approx(170 * 60)
    assert ahead["end"] == (NOW + timedelta(minutes=170)).isoformat()


def test_in_rounds_the_forecast_waits_for_the_last_of_each() -> None:
    batch = {"execution": {"mode": "batch"}, "budget": {"trials": 6, "parallel": 2}}
    assert told([finished(0), running(1)], **batch)["forecast"]["seconds"] == pytest.approx((50 + 120) * 60)


def test_jobs_that_wait_shift_the_end_of_the_forecast() -> None:
    soon = NOW + timedelta(hours=3)
    jobs = [JobRow(id="5_0", state="PENDING", reason="Priority", estimate=soon.isoformat())]
    found = told([finished(n) for n in range(9)], jobs)
    assert found["forecast"]["end"] == (soon + timedelta(hours=1)).isoformat()
    assert "until 16:00" in text(found)


def test_where_nothing_is_known_the_forecast_says_so() -> None:
    found = told([running(0)])
    assert found["forecast"] == {"trials_left": 10, "seconds": None, "gpu_hours": None, "end": None}
    assert "how long the rest will take is not known" in text(found)


def test_a_study_that_is_over_expects_only_what_still_runs() -> None:
    rows = [*[failed(n, "user") for n in range(7)], finished(7), running(8)]
    assert told(rows)["forecast"]["trials_left"] == 1
    assert "10 waiting" not in text(told(rows[:8]))
    assert "s: stopped (1 of 10 finished, 9 not tried, 7 failed)" in text(told(rows[:8]))


def test_a_bad_node_is_named_with_its_reason() -> None:
    broken = attempt("failed", host="n3", cause="node", message="CUDA error: uncorrectable ECC error")
    found = told([replace(failed(1, "node"), attempts=(broken,))])
    assert found["bad_nodes"] == {"n3": "CUDA error: uncorrectable ECC error"}
    assert "node n3 is left out: CUDA error" in text(found)


def test_the_age_of_the_clusters_answer_is_told_where_it_is_old() -> None:
    assert "12 s ago" in text(told([]) | {"queue_age_s": 12.2})
    assert "ago" not in text(told([]) | {"queue_age_s": 0.0})


def climbed(number: int, *values: float, state: str = "waiting") -> TrialRow:
    reached = tuple(Climbed(rung=k, budget=1.0, values=(v,), stderrs=(None,)) for k, v in enumerate(values))
    attempts = tuple(attempt("rung", rung=one.rung, seconds=600) for one in reached)
    return TrialRow(
        number=number, kind="trial", state=state, params={}, values=(values[-1],) if state == "stopped" else (),
        rung=reached[-1].rung, climbed=reached, attempts=attempts,
    )  # fmt: skip


ASHA = {"search": {"pruner": "asha"}}


def test_trials_on_their_way_are_told_as_resting_and_those_that_were_stopped_count_as_done() -> None:
    found = told([finished(0), climbed(1, 0.3), climbed(2, 0.2, state="stopped"), running(3)], **ASHA)
    assert found["trials"]["resting"] == found["trials"]["stopped"] == 1
    assert (found["trials"]["left"], found["trials"]["waiting"], found["trials"]["paused"]) == (7, 6, 0)
    assert "s: running (1 of 10 finished, 1 stopped, 1 running, 1 resting, 6 waiting)" in text(found)
    over = told([finished(0), *(climbed(n, 0.2, state="stopped") for n in range(1, 10))], **ASHA)
    assert over["state"] == "done"


def test_a_rung_is_no_further_try() -> None:
    row = replace(climbed(1, 0.3, 0.4), state="running", start=UNIX - 5)
    [one] = told([row], **ASHA)["running_trials"]
    assert (one["attempt"], one["rung"]) == (1, 1)


def test_the_best_on_the_way_is_told_with_its_value_there() -> None:
    found = told([climbed(1, 0.9), climbed(2, 0.5, 0.6)], **ASHA)
    assert [(row["number"], row["values"]) for row in found["best"]] == [(2, {"acc": 0.6})]


def test_what_is_left_takes_as_long_as_trials_with_rungs_took() -> None:
    rows = [climbed(0, 0.9, 0.9), climbed(1, 0.5, state="stopped"), climbed(2, 0.1)]
    ahead = told(rows, **ASHA)["forecast"]
    assert ahead["trials_left"] == 7
    assert ahead["seconds"] == pytest.approx(4 * 800, abs=0.1)  # two at a time, of 800 s on the average

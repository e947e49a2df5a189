"""The status of a study as `status` prints it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hpotune.records.jobs import JobRow
from hpotune.records.stop_reason import StopReason
from hpotune.records.trial import RegretBound
from hpotune.reporting.status_table import status_table
from hpotune.reporting.views.status import StudyStatus
from tests.fixtures.report_rows import (
    ASHA,
    NOW,
    attempt,
    failed,
    finished,
    paused,
    printed,
    running,
    scored_at_rungs,
    status_of,
)


def text(status: StudyStatus) -> str:
    return printed(status_table(status, now=NOW))


def test_headline_counts_trials() -> None:
    status = status_of([finished(0), running(1), running(2), failed(3), paused(4), running(5)], lost=[5])
    assert "s: running (1 of 10 finished, 2 running, 5 waiting, 1 paused, 1 failed, 1 lost)" in text(status)


def test_headline_names_pruned_trials() -> None:
    rows = [finished(0), scored_at_rungs(1, 0.3), scored_at_rungs(2, 0.2, state="stopped"), running(3)]
    headline = "s: running (1 of 10 finished, 1 pruned, 1 running, 1 waiting for promotion, 6 waiting)"
    assert headline in text(status_of(rows, **ASHA))


def test_running_trial_shows_its_time() -> None:
    status = status_of([replace(running(3, host="n7", seconds=7260), attempts=(attempt("paused"),))])
    assert "3      2 h 01 min  n7    5_0  2" in text(status)


def test_pending_elements_share_a_line() -> None:
    soon = (NOW + timedelta(hours=1)).isoformat()
    jobs = [JobRow(id=f"5_{n}", state="PENDING", reason="JobArrayTaskLimit", estimate=soon) for n in range(8)]
    line = next(line for line in text(status_of([], jobs)).splitlines() if "PENDING" in line)
    assert line.startswith("5_0-7")
    assert line.rstrip().endswith("13:00")


def test_ranges_hold_their_elements_only() -> None:
    states = ["CANCELLED", *["COMPLETED"] * 3, *["CANCELLED"] * 4]
    jobs = [JobRow(id=f"167_{n}", state=state) for n, state in enumerate(states)]
    lines = [line.split()[:3] for line in text(status_of([], jobs)).splitlines() if line.startswith("167_")]
    assert sorted(lines) == [["167_0,4-7", "worker", "CANCELLED"], ["167_1-3", "worker", "COMPLETED"]]


def test_scattered_elements_are_counted() -> None:
    jobs = [JobRow(id=f"7_{n}", state="COMPLETED" if n % 2 else "FAILED") for n in range(60)]
    assert sum(line.startswith("30 of 7 ") for line in text(status_of([], jobs)).splitlines()) == 2


def test_held_array_explains_waiting_elements() -> None:
    jobs = [JobRow(id="7_0", state="RUNNING", reason="JobHeldAdmin")]
    jobs += [JobRow(id=f"7_{n}", state="PENDING", reason="JobHeldAdmin") for n in (1, 2)]
    lines = [
        line for line in text(status_of([running(0, "7_0")], jobs)).splitlines() if line.startswith("7_")
    ]
    assert "administrator" not in lines[0]
    assert lines[1].startswith("7_1-2")
    assert "an administrator holds it" in lines[1]


def test_silent_worker_is_reported() -> None:
    rows = [finished(0), running(1, seconds=4000, silent=720), running(2, "local", silent=400, pid=4711)]
    shown = text(status_of(rows))
    assert "trial 1: no heartbeat of its worker (5_0 on n1) for 12 min" in shown
    assert "`scancel 5_0` lets another worker continue the trial" in shown
    assert "trial 2: no heartbeat of its worker (local process 4711 on n1) for 7 min" in shown
    assert "about 0 s" not in shown


def test_local_worker_is_named() -> None:
    assert "local process 4711" in text(status_of([running(2, "local", host="me", pid=4711)]))


def test_overdue_trial_takes_no_zero_seconds() -> None:
    rows = [*(finished(n) for n in range(9)), running(9, seconds=9000)]
    assert "the last trial has run longer than the mean of the others" in text(status_of(rows))


def test_missing_facts_are_said() -> None:
    assert "cluster: how jobs ended is not known: x" in text(
        replace(status_of([]), missing=("how jobs ended is not known: x",))
    )


def test_many_jobs_are_few_lines() -> None:
    jobs = [JobRow(id=f"7_{n}", state="COMPLETED", exit_code="0:0") for n in range(9_000)]
    jobs += [JobRow(id=f"8_{n}", state="RUNNING") for n in range(500)]
    jobs += [JobRow(id=f"9_{n}", state="PENDING", reason="Priority") for n in range(500)]
    rows = [running(n, f"8_{n}") for n in range(500)]
    lines = text(status_of(rows, jobs)).splitlines()
    assert len(lines) < 50
    assert any(line.startswith("…") and "more" in line for line in lines)


def test_failures_are_listed_by_cause() -> None:
    shown = text(status_of([failed(1), failed(2), failed(3, "nan"), paused(4), paused(5)]))
    assert "failed: 2 x oom, 1 x nan" in shown
    assert "interrupted and continued: 2 x preempted" in shown


def test_best_so_far_shows_standard_error() -> None:
    shown = text(status_of([finished(1), finished(2, 0.75)]))
    assert "best so far: trial 2, acc 0.75 ± 0.01 (± standard error)" in shown
    assert "standard error" not in text(status_of([finished(1, stderr=None)]))


def test_gpu_hours_are_shown() -> None:
    assert "4.00 GPU-hours used" in text(status_of([finished(0), paused(1), running(2, seconds=1800)]))


def test_end_of_forecast_is_shown() -> None:
    soon = (NOW + timedelta(hours=3)).isoformat()
    jobs = [JobRow(id="5_0", state="PENDING", reason="Priority", estimate=soon)]
    assert "until 16:00" in text(status_of([finished(n) for n in range(9)], jobs))


def test_unknown_forecast_is_said() -> None:
    assert "the time left is not known" in text(status_of([running(0)]))


def test_stopped_study_shows_reason_and_advice() -> None:
    rows = [*[failed(n, "user") for n in range(7)], finished(7)]
    shown = text(status_of(rows))
    assert "10 waiting" not in shown
    assert "s: stopped (1 of 10 finished, 9 not started, 7 failed)" in shown
    assert "stopped: 7 trials failed" in shown
    assert "next: fix the cause, then hpotune retry /studies/s" in shown


def test_plateau_does_not_advise_extend() -> None:
    status = replace(
        status_of([finished(0)]), state="stopped", stop=StopReason(kind="plateau", text="no better point")
    )
    shown = text(status)
    assert "next: stop here: the search expects no better point" in shown
    assert "extend" not in shown


def test_regret_bound_is_explained() -> None:
    bound = RegretBound(regret=0.021, gain=0.004, ahead=10, trials=30)
    assert (
        "the next 10 trials are expected to gain 0.004; no point is better than the best by more than 0.021 "
        "(95 % confidence, from 30 trials)"
    ) in text(replace(status_of([finished(0)]), regret_bound=bound))


def test_bad_node_is_named_with_reason() -> None:
    broken = attempt("failed", host="n3", cause="node", message="CUDA error: uncorrectable ECC error")
    shown = text(status_of([replace(failed(1, "node"), attempts=(broken,))]))
    assert "new jobs exclude node n3: CUDA error" in shown


def test_old_job_states_show_their_age() -> None:
    assert "job states are 12 s old" in text(replace(status_of([]), queue_age_s=12.2))
    assert "old" not in text(replace(status_of([]), queue_age_s=0.0))


def test_silent_cluster_is_reported() -> None:
    assert "cluster: not reachable: no answer" in text(
        replace(status_of([]), cluster="not reachable: no answer")
    )

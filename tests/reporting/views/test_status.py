"""The status of a study: counts, what runs, jobs, failures, cost."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from hpotune.records.jobs import JobRow
from hpotune.records.trial import TrialRow
from hpotune.reporting.status_table import sentences
from hpotune.reporting.views.status import RunningTrial, TrialCounts, study_status
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.report_rows import (
    ASHA,
    FOLDER,
    NOW,
    UNIX,
    attempt,
    config,
    failed,
    finished,
    paused,
    running,
    scored_at_rungs,
    status_of,
)


def test_trial_counts_add_up() -> None:
    status = status_of([finished(0), running(1), running(2), failed(3), paused(4), running(5)], lost=[5])
    assert status.trials == TrialCounts(
        budget=10,
        finished=1,
        running=2,
        waiting=5,
        paused=1,
        lost=1,
        failed=1,
        left=7,
        stopped=0,
        raced=0,
        resting=0,
    )


def test_trial_of_stale_worker_is_lost() -> None:
    """Its slot in the budget is left."""
    status = status_of([finished(0), running(1, "5_1")], [JobRow(id="5_1", state="FAILED")], [1])
    assert (status.trials.running, status.trials.lost, status.trials.left) == (0, 1, 9)
    assert (status.state, status.running_trials) == ("idle", ())


def test_running_trial_names_its_worker() -> None:
    status = status_of([replace(running(3, host="n7", seconds=7260), attempts=(attempt("paused"),))])
    one = RunningTrial(number=3, host="n7", job="5_0", attempt=2, rung=None, seconds=7260.0)
    assert status.running_trials == (one,)


def test_study_is_queued_while_jobs_wait() -> None:
    soon = (NOW + timedelta(hours=1)).isoformat()
    status = status_of([], [JobRow(id="5_0", state="PENDING", reason="JobArrayTaskLimit", estimate=soon)])
    assert status.state == "queued"
    assert (status.jobs[0].estimate, status.jobs[0].reason) == (soon, "JobArrayTaskLimit")
    assert "as budget.parallel allows" in status.jobs[0].why


@pytest.fixture
def cancelled(tmp_path: Path) -> StudyFolder:
    """The folder of a study that was cancelled a minute ago."""
    folder = StudyFolder(path=tmp_path)
    folder.jobs.mkdir()
    folder.cancelled.touch()
    os.utime(folder.cancelled, (UNIX - 60, UNIX - 60))
    return folder


@pytest.mark.parametrize(
    ("rows", "jobs", "state"),
    [
        ([], [JobRow(id="5_0", state="PENDING")], "cancelling"),
        ([], [JobRow(id="5_0", state="COMPLETING")], "cancelling"),
        ([running(1, seconds=90)], [], "cancelling"),
        ([], [JobRow(id="5_0", state="CANCELLED")], "cancelled"),
        ([finished(0), paused(1)], [], "cancelled"),
        ([running(1, seconds=30)], [], "running"),
        ([finished(n) for n in range(10)], [], "done"),
    ],
    ids=["pending", "completing", "running", "ended", "paused", "started since", "done"],
)
def test_cancelled_study_is_not_queued(
    cancelled: StudyFolder, rows: list[TrialRow], jobs: list[JobRow], state: str
) -> None:
    assert study_status(cancelled, config(), rows, jobs, [], now=NOW).state == state


def test_scancel_of_all_is_said() -> None:
    by = "`scancel` of job 5_0, all that was left, outside hpotune"
    jobs = [JobRow(id="5_0", state="CANCELLED")]
    status = study_status(FOLDER, config(), [finished(0)], jobs, [], now=NOW, cancelled_by=by)
    assert (status.state, status.cancelled_by) == ("cancelled", by)
    assert f"cancelled by {by}: `hpotune resume {FOLDER.path}` continues it" in sentences(status, now=NOW)


@pytest.mark.parametrize(("other", "state"), [("RUNNING", "running"), ("PENDING", "queued"), ("", "idle")])
def test_held_jobs_do_not_wait(other: str, state: str) -> None:
    """Nor does the follow-up that depends on them."""
    held = JobRow(id="5_0", state="PENDING", reason="JobHoldMaxRequeue")
    after = JobRow(id="6_0", state="PENDING", reason="Dependency", kind="follow-up")
    status = status_of([finished(0)], [held, after, *([JobRow(id="5_1", state=other)] if other else [])])
    assert (status.state, status.held) == (state, ("5_0",))
    assert any("Slurm holds job 5_0 after failed launches" in line for line in sentences(status, now=NOW))


def test_silence_longer_than_the_lease() -> None:
    rows = [running(1, silent=299), running(2, silent=301), running(3, "local", pid=7)]
    found = {one.number: (one.silent_s, one.pid) for one in status_of(rows).running_trials}
    assert found == {1: (None, None), 2: (301.0, None), 3: (None, 7)}


def test_running_job_names_its_trial() -> None:
    jobs = [JobRow(id="5_0", state="RUNNING"), JobRow(id="5_1", state="RUNNING")]
    assert [job.trial for job in status_of([running(2, "5_0")], jobs).jobs] == [2, None]


def test_failures_are_counted_by_cause() -> None:
    status = status_of([failed(1), failed(2), failed(3, "nan"), paused(4), paused(5)])
    assert (status.failures, status.interrupted) == ({"oom": 2, "nan": 1}, {"preempted": 2})


def test_gpu_hours_include_running_attempts() -> None:
    status = status_of([finished(0), paused(1), running(2, seconds=1800)])
    assert status.gpu_hours == pytest.approx(2 * (1 + 0.5 + 0.5))


def test_bad_node_has_a_reason() -> None:
    broken = attempt("failed", host="n3", cause="node", message="CUDA error: uncorrectable ECC error")
    status = status_of([replace(failed(1, "node"), attempts=(broken,))])
    assert status.bad_nodes == {"n3": "CUDA error: uncorrectable ECC error"}


def test_pruned_trials_count_as_done() -> None:
    rows = [finished(0), scored_at_rungs(1, 0.3), scored_at_rungs(2, 0.2, state="stopped"), running(3)]
    counts = status_of(rows, **ASHA).trials
    assert counts.resting == counts.stopped == 1
    assert (counts.left, counts.waiting, counts.paused) == (7, 6, 0)
    pruned = [scored_at_rungs(n, 0.2, state="stopped") for n in range(1, 10)]
    assert status_of([finished(0), *pruned], **ASHA).state == "done"


def test_promotion_is_not_another_attempt() -> None:
    row = replace(scored_at_rungs(1, 0.3, 0.4), state="running", start=UNIX - 5)
    [one] = status_of([row], **ASHA).running_trials
    assert (one.attempt, one.rung) == (1, 1)


def test_best_is_on_highest_rung() -> None:
    status = status_of([scored_at_rungs(1, 0.9), scored_at_rungs(2, 0.5, 0.6)], **ASHA)
    assert [(row.number, row.values) for row in status.best] == [(2, {"acc": 0.6})]


def test_stop_reason_has_a_kind() -> None:
    status = status_of([failed(n, "user") for n in range(7)])
    assert status.state == "stopped"
    assert status.stop is not None
    assert status.stop.is_failure

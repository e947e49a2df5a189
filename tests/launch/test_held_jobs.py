"""Jobs that Slurm itself holds: cancelled before others replace them, and never taken for a user's cancel."""

from __future__ import annotations

import pytest

from hpotune.errors import ClusterError
from hpotune.launch import cancellation
from hpotune.launch.cancellation import cancelled_how, mark_cancelled
from hpotune.launch.held_jobs import only_held_left, replace_held
from hpotune.records.jobs import JobRow
from hpotune.workspace.folder import StudyFolder

HELD = "launch failed requeued held"


@pytest.fixture
def folder(tmp_path) -> StudyFolder:
    (tmp_path / "jobs" / "7").mkdir(parents=True)
    return StudyFolder(path=tmp_path)


@pytest.fixture
def cancelled(monkeypatch) -> list[str]:
    """The commands that Slurm gets."""
    commands: list[str] = []
    monkeypatch.setattr(
        "hpotune.slurm.study_jobs.run_command", lambda command: commands.append(" ".join(command))
    )
    return commands


def held(index: int, **other: str) -> JobRow:
    return JobRow(**{"id": f"7_{index}", "state": "PENDING", "reason": HELD, **other})


@pytest.mark.parametrize(
    ("state", "reason", "is_held"),
    [
        ("PENDING", "launch failed requeued held", True),
        ("PENDING", "launch_failed_requeued_held", True),
        ("PENDING", "JobHoldMaxRequeue", True),
        ("PENDING", "JobHeldAdmin", False),
        ("PENDING", "JobHeldUser", False),
        ("PENDING", "Resources", False),
        ("RUNNING", "launch failed requeued held", False),
    ],
)
def test_persons_holds_are_not_slurms(state, reason, is_held):
    assert JobRow(id="7_0", state=state, reason=reason).held_by_slurm == is_held


def test_released_job_is_not_replaced(folder, cancelled):
    """Somebody releases one while both are cancelled: it runs, and counts as running."""
    now = [JobRow(id="7_0", state="CANCELLED"), JobRow(id="7_1", state="RUNNING")]
    after, warning = replace_held(folder, [held(0), held(1)], ask=lambda: now)
    assert cancelled == ["scancel --state=PENDING 7_0 7_1"]
    assert [(row.id, row.state) for row in after] == [("7_0", "GONE"), ("7_1", "RUNNING")]
    assert "Slurm held job 7_0 after failed launches" in warning


def test_silent_slurm_leaves_held_jobs(folder, monkeypatch):
    def refuse(_: object) -> str:
        raise ClusterError("no answer")

    monkeypatch.setattr("hpotune.slurm.study_jobs.run_command", refuse)
    rows = [held(0), JobRow(id="7_1", state="RUNNING")]
    after, warning = replace_held(folder, rows, ask=lambda: [])
    assert after == rows
    assert "cannot be replaced now: no answer; `scontrol release 7_0` starts it" in warning


def test_held_rehearsal_stays(folder, cancelled):
    """Workers depend on its success."""
    rows = [held(0, kind="rehearsal"), JobRow(id="8_0", state="PENDING", reason="Dependency")]
    assert replace_held(folder, rows, ask=lambda: []) == (rows, "")
    assert cancelled == []


def test_replaced_job_cancels_no_study(folder, cancelled, monkeypatch):
    monkeypatch.setattr(cancellation, "query_ends", lambda ids: {id_: ("CANCELLED", 10.0) for id_ in ids})
    ended = [JobRow(id="7_0", state="CANCELLED")]
    assert cancelled_how(folder, ended) == "`scancel` of job 7_0, all that was left, outside hpotune"
    replace_held(folder, [held(0)], ask=lambda: ended)
    assert cancelled_how(folder, ended) == ""
    mark_cancelled(folder, "`hpotune cancel`")
    assert cancelled_how(folder, ended) == "`hpotune cancel`"


@pytest.mark.parametrize(
    ("others", "left"),
    [
        ([held(1)], True),
        ([held(1), JobRow(id="8_0", state="PENDING", reason="Dependency", kind="follow-up")], True),
        ([held(1), JobRow(id="7_2", state="RUNNING")], False),
        ([], False),
    ],
)
def test_last_worker_sees_held_ones(others, left):
    assert only_held_left([JobRow(id="7_0", state="RUNNING"), *others], beside="7_0") == left

"""Whether a user cancelled the study or one element of it, and when a worker does a follow-up's work. No Slurm."""

from __future__ import annotations

import json
import os

import pytest

from hpotune.errors import StoreError
from hpotune.launch import cancel, cancellation, next_follow_up
from hpotune.launch.cancel import cancel_study
from hpotune.launch.cancellation import cancelled_jobs, mark_cancelled, settled_jobs
from hpotune.launch.next_follow_up import stands_in, submit_next
from hpotune.records.jobs import JobRow
from hpotune.records.trial import Worker
from hpotune.slurm.cluster_limits import SubmitLimitReached
from hpotune.slurm.study_jobs import JobsAnswer
from hpotune.storage import TrialQueue
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.heartbeat import Heartbeat, heartbeat_file


@pytest.fixture
def study(make_study, make_study_folder, tmp_path):
    """A study's folder with one recorded array of workers, its store and its config."""
    made, url = make_study(), f"sqlite:///{tmp_path}/store.db"
    folder = make_study_folder(made, url)
    write_atomic(folder.jobs / "7" / "job.json", json.dumps({"id": "7", "kind": "worker", "count": 2}))
    return folder, TrialQueue.create(url, made, folder=str(folder.path)), made.config


def rows(*states: str) -> list[JobRow]:
    return [JobRow(id=f"7_{index}", state=state) for index, state in enumerate(states)]


def test_full_disk_cancels_the_study(study, monkeypatch):
    """Only the content of the mark needs space."""
    folder, store, _ = study
    monkeypatch.setattr(cancellation, "write_atomic", refuse)
    monkeypatch.setattr(cancel, "query_jobs", lambda *_: rows("RUNNING", "PENDING"))
    ended = []
    monkeypatch.setattr(cancel, "cancel_jobs", lambda _, ids: ended.append(ids))
    assert cancel_study(folder, store) == ["7_0", "7_1"]
    assert ended == [["7"]]
    assert cancellation.cancellation(folder) == "`hpotune cancel`"


def test_jobs_are_cancelled_without_mark(study, monkeypatch):
    folder, store, _ = study
    folder.cancelled.mkdir()
    monkeypatch.setattr(cancel, "query_jobs", lambda *_: rows("RUNNING"))
    ended = []
    monkeypatch.setattr(cancel, "cancel_jobs", lambda _, ids: ended.append(ids))
    with pytest.raises(StoreError, match=r"stopped: 7_0; .*`hpotune cancel` again"):
        cancel_study(folder, store)
    assert ended == [["7"]]


def refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("jobs", "ends", "taken"),
    [
        (("CANCELLED", "COMPLETED"), {"7_0": ("CANCELLED", 10.0), "7_1": ("COMPLETED", 20.0)}, ""),
        (("CANCELLED", "COMPLETED"), {"7_0": ("CANCELLED", 20.0), "7_1": ("COMPLETED", 10.0)}, "7_0"),
        (("CANCELLED", "TIMEOUT"), {"7_0": ("CANCELLED", 10.0), "7_1": ("TIMEOUT", 20.0)}, ""),
        (("CANCELLED", "CANCELLED"), {"7_0": ("CANCELLED", 10.0), "7_1": ("CANCELLED", 11.0)}, "7"),
        (("GONE", "COMPLETED"), {"7_1": ("COMPLETED", 10.0)}, ""),
        (("GONE", "GONE"), {"7": ("CANCELLED", 10.0)}, "7"),
        (("CANCELLED", "RUNNING"), {"7_0": ("CANCELLED", 10.0)}, ""),
        (("COMPLETED", "FAILED"), {}, ""),
    ],
    ids=[
        "one, others later", "the last one", "one, time-out later", "all", "one that waited", "all that waited",
        "one runs on", "none",
    ],
)  # fmt: skip
def test_cancel_of_all_that_was_left(study, monkeypatch, jobs, ends, taken):
    monkeypatch.setattr(cancellation, "query_ends", lambda _: ends)
    assert cancelled_jobs(study[0], rows(*jobs)) == taken


def test_later_heartbeat_is_a_later_end(study, monkeypatch):
    monkeypatch.setattr(cancellation, "query_ends", lambda _: {"7_0": ("CANCELLED", 100.0)})
    Heartbeat(folder=study[0], worker=Worker(job="7_1", host="n1", pid=1)).start(now=1.0)
    os.utime(heartbeat_file(study[0], "7_1"), (50.0, 50.0))
    assert cancelled_jobs(study[0], rows("CANCELLED", "GONE")) == "7_0"
    os.utime(heartbeat_file(study[0], "7_1"), (150.0, 150.0))
    assert cancelled_jobs(study[0], rows("CANCELLED", "GONE")) == ""


def test_cancelled_jobs_are_let_end(monkeypatch):
    answers = iter([rows("CANCELLED", "COMPLETING"), rows("CANCELLED", "CANCELLED")])
    monkeypatch.setattr(cancellation, "SETTLE_POLL_S", 0.0)
    assert [row.state for row in settled_jobs(lambda: next(answers))] == ["CANCELLED"] * 2


def test_mark_says_what_cancelled(study):
    folder = study[0]
    assert cancellation.cancellation(folder) is None
    folder.cancelled.touch()  # of an earlier version
    assert cancellation.cancellation(folder) == "`hpotune cancel`"
    mark_cancelled(folder, "scancel of 7")
    assert cancellation.cancellation(folder) == "scancel of 7"


def test_refused_follow_up_is_replaced(study, monkeypatch):
    folder, store, config = study
    waits = JobRow(id="8_0", state="PENDING", reason="Dependency", kind="follow-up")
    queue = [*rows("RUNNING", "RUNNING"), waits]
    monkeypatch.setattr(next_follow_up, "cached_jobs", lambda *_, **__: JobsAnswer(rows=tuple(queue)))
    assert not stands_in(folder, config, store, job="7_0")

    def refuse(_: object) -> str:
        raise SubmitLimitReached("too many", limit="MaxSubmitJobs")

    assert submit_next(folder, config, queue, ["9_0"], submit=refuse) == ([], "")
    assert not stands_in(folder, config, store, job="7_0")
    ids, warning = submit_next(folder, config, queue[:2], ["9_0"], submit=refuse)
    assert (ids, "the worker that ends last does its work" in warning) == ([], True)
    assert stands_in(folder, config, store, job="7_0")
    assert not stands_in(folder, config, store, job="99")  # not a job of hpotune's
    assert submit_next(folder, config, queue[:2], ["9_0"], submit=lambda _: "10") == (["10"], "")
    assert not stands_in(folder, config, store, job="7_0")


@pytest.mark.parametrize(
    ("state", "needed"), [("CANCELLED", True), ("PENDING", False), ("RUNNING", False), ("UNKNOWN", False)]
)
def test_worker_replaces_cancelled_follow_up(study, monkeypatch, state, needed):
    folder, store, config = study
    queue = [*rows("RUNNING", "RUNNING"), JobRow(id="8_0", state=state, kind="follow-up")]
    monkeypatch.setattr(next_follow_up, "cached_jobs", lambda *_, **__: JobsAnswer(rows=tuple(queue)))
    assert stands_in(folder, config, store, job="7_0") == needed
    mark_cancelled(folder, "`hpotune cancel`")
    assert not stands_in(folder, config, store, job="7_0")

"""HyperQueue's tasks as rows of jobs: by what a real server says, by heartbeats, and by marks."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from hpotune.errors import ClusterError
from hpotune.records.jobs import JobRow
from hpotune.records.trial import Worker
from hpotune.slurm.heartbeat_states import mark_jobs, states_from_heartbeats
from hpotune.slurm.hyperqueue.hq_commands import hq_json
from hpotune.slurm.hyperqueue.task_states import cancel_tasks, query_task_states
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.heartbeat import Heartbeat
from tests.fixtures.hyperqueue_server import HyperQueue


def states(folder: Path, ids: list[str], names: dict[str, str], lease_s: float = 60) -> dict[str, JobRow]:
    beats = partial(states_from_heartbeats, StudyFolder(path=folder), [], lease_s=lease_s)
    return query_task_states(ids, names, from_heartbeats=beats)


def beat(folder: Path, job: str) -> None:
    """A worker of this job has just started."""
    Heartbeat(folder=StudyFolder(path=folder), worker=Worker(job=job, host="n1", pid=1)).start(
        now=time.time()
    )


def test_tasks_have_slurms_states(hyperqueue: HyperQueue, tmp_path: Path) -> None:
    body = "case $HQ_TASK_ID in 0) true;; 1) exit 3;; 2) kill -9 $$;; *) sleep 300;; esac"
    hq_json("submit", "--name", "mine", "--array", "0-3", "bash", "-c", body)
    hq_json("submit", "--name", "waits", "--cpus", "9", "true")
    hq_json("submit", "--name", "short", "--time-limit", "00:00:01", "sleep", "300")
    ended = {0: "finished", 1: "failed", 2: "failed", 3: "running"}
    hyperqueue.until(lambda: hyperqueue.tasks() == ended and hyperqueue.tasks(3) == {0: "failed"})
    names = {"5": "mine", "6": "waits", "7": "short", "8": "of an earlier server"}
    ids = ["5_0", "5_1", "5_2", "5_3", "6_0", "7_0", "8_0"]
    found = states(tmp_path, ids, names)
    assert [found[id_].state for id_ in ids] == [
        "COMPLETED", "FAILED", "FAILED", "RUNNING", "PENDING", "TIMEOUT", "GONE",
    ]  # fmt: skip
    assert found["5_1"].exit_code == "3:0"
    assert found["6_0"].reason == "waits for a worker of HyperQueue"
    cancel_tasks(["mine", "waits", "of an earlier server"])
    hyperqueue.until(lambda: "running" not in hyperqueue.tasks().values())
    assert [states(tmp_path, ids, names)[id_].state for id_ in ("5_0", "5_3", "6_0")] == [
        "COMPLETED", "CANCELLED", "CANCELLED",
    ]  # fmt: skip


def test_marked_worker_has_ended(hyperqueue: HyperQueue, tmp_path: Path) -> None:
    hq_json("submit", "--name", "mine", "sleep", "300")
    hyperqueue.until(lambda: hyperqueue.tasks() == {0: "running"})
    beat(tmp_path, "5_0")
    assert states(tmp_path, ["5_0"], {"5": "mine"})["5_0"].state == "RUNNING"
    time.sleep(0.01)
    mark_jobs(StudyFolder(path=tmp_path), ["5_0"], "ended")
    assert states(tmp_path, ["5_0"], {"5": "mine"})["5_0"].state == "GONE"
    time.sleep(0.01)
    beat(tmp_path, "5_0")  # HyperQueue started the task again
    assert states(tmp_path, ["5_0"], {"5": "mine"})["5_0"].state == "RUNNING"


def test_earlier_server_leaves_heartbeats(hq_here: HyperQueue, tmp_path: Path) -> None:
    hq_here.start()
    beat(tmp_path, "5_0")
    assert states(tmp_path, ["5_0"], {"5": "mine"})["5_0"].state == "RUNNING"
    assert states(tmp_path, ["5_0"], {"5": "mine"}, lease_s=0)["5_0"].state == "GONE"


def test_heartbeats_tell_without_server(hq_here: HyperQueue, tmp_path: Path) -> None:
    beat(tmp_path, "5_0")
    missing: list[str] = []
    beats = partial(states_from_heartbeats, StudyFolder(path=tmp_path), [], lease_s=60)
    ids, names = ["5_0", "5_1"], {"5": "mine"}
    found = query_task_states(ids, names, from_heartbeats=beats, missing=missing)
    assert [found[id_].state for id_ in ids] == ["RUNNING", "UNKNOWN"]
    assert [text.startswith("no HyperQueue server answers (No running instance") for text in missing] == [
        True
    ]
    with pytest.raises(ClusterError, match="no HyperQueue server answers"):
        cancel_tasks(["mine"])

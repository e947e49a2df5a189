"""What is known of a study's jobs with and without Slurm's commands, and how seldom they are asked. Fake commands."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from hpotune.errors import ClusterError, StudyFileError
from hpotune.records.trial import TrialRow, Worker
from hpotune.slurm.commands import CommandMissing, run_command
from hpotune.slurm.job_arrays import expand_ids
from hpotune.slurm.study_jobs import (
    cached_jobs,
    cancel_jobs,
    failure_by_job_state,
    invalidate_cache,
    poll_s,
    query_jobs,
    submitted_jobs,
)
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.heartbeat import Heartbeat, heartbeat_file, read_heartbeat

HEADER = "JOBID|STATE|REASON|START_TIME\n"
QUEUE = HEADER + (
    "7_0|RUNNING|None|2026-06-01T12:00:00\n7_1|TIMEOUT|TimeLimit|2026-06-01T12:00:00\n"
    "7_3|PENDING|Resources|2026-06-01T14:00:00\n8_0|PENDING|Dependency|N/A\n"
)
SACCT = "7_0|RUNNING|0:0\n7_1|TIMEOUT|0:0\n7_2|FAILED|9:0\n7_[3%2]|PENDING|0:0\n8_[0]|PENDING|0:0\n"
SHOWN = (
    "JobId=9 ArrayJobId=7 ArrayTaskId=0 JobName=a b JobState=RUNNING Reason=None StartTime=2026-06-01T12:00:00\n"
    "JobId=7 ArrayJobId=7 ArrayTaskId=2-3%2 JobName=a JobState=PENDING Reason=Priority StartTime=2026-06-01T14:00:00\n"
    "JobId=11 JobName=other JobState=RUNNING Reason=None\n"
    "JobId=10 ArrayJobId=7 ArrayTaskId=1 JobName=a JobState=TIMEOUT Reason=TimeLimit StartTime=2026-06-01T12:00:00\n"
)


@pytest.fixture
def study_folder(tmp_path: Path) -> StudyFolder:
    """A study's folder with an array of four and its follow-up."""
    folder = StudyFolder(path=tmp_path / "study")
    for id_, kind, count in (("7", "worker", 4), ("8", "step", 1)):
        recorded = {"id": id_, "kind": kind, "count": count, "throttle": 2, "trials": 1}
        write_atomic(folder.jobs / id_ / "job.json", json.dumps(recorded))
    return folder


def states(rows) -> dict[str, str]:
    return {row.id: row.state for row in rows}


def running(job: str, *, beat: float | None = None, number: int = 0) -> TrialRow:
    worker = Worker(job=job, host="n1", pid=1)
    return TrialRow(
        number=number, kind="trial", state="running", params={}, worker=worker, start=1.0, last_heartbeat=beat
    )


def test_squeue_gives_states_and_reasons(study_folder, fake):
    fake("squeue", QUEUE)
    fake("sacct", SACCT)
    rows = {row.id: row for row in query_jobs(study_folder, [])}
    assert states(rows.values()) == {
        "7_0": "RUNNING", "7_1": "TIMEOUT", "7_2": "FAILED", "7_3": "PENDING", "8_0": "PENDING"
    }  # fmt: skip
    assert rows["7_3"].estimate == "2026-06-01T14:00:00"
    assert (rows["7_3"].reason, rows["8_0"].reason, rows["7_0"].reason) == ("Resources", "Dependency", "")
    assert {row.estimate for id_, row in rows.items() if id_ != "7_3"} == {""}
    assert rows["7_2"].exit_code == "9:0"
    assert rows["8_0"].kind == "follow-up"
    assert (fake.calls("squeue"), fake.calls("sacct")) == (1, 1)


def test_controller_reports_ends_without_sacct(study_folder, fake):
    fake("squeue", QUEUE)
    assert states(query_jobs(study_folder, []))["7_1"] == "TIMEOUT"
    assert states(query_jobs(study_folder, []))["7_2"] == "GONE"


def test_federation_shows_a_job_twice(study_folder, fake):
    elsewhere = "7_0|REVOKED|None|N/A\n"
    fake("squeue", QUEUE.replace("7_1|TIMEOUT", "7_2|REVOKED") + elsewhere)
    found = states(query_jobs(study_folder, []))
    assert (found["7_0"], found["7_2"]) == ("RUNNING", "UNKNOWN")
    big = str((3 << 26) + 17)  # the bits above 26 are the cluster's
    write_atomic(study_folder.jobs / big / "job.json", json.dumps({"id": big, "kind": "worker", "count": 1}))
    fake("squeue", QUEUE + f"{big}_0|RUNNING|None|2026-06-01T12:00:00\n")
    assert states(query_jobs(study_folder, []))[f"{big}_0"] == "RUNNING"


def test_late_accounting_is_overruled(study_folder, fake):
    fake("squeue", "8_0|PENDING|Dependency|N/A\n")
    fake("sacct", SACCT)
    assert states(query_jobs(study_folder, []))["7_0"] == "GONE"


@pytest.mark.parametrize("code", [None, 127], ids=["absent", "a wrapper that finds nothing"])
def test_scontrol_replaces_squeue(study_folder, fake, code):
    if code:
        fake("squeue", "sh: squeue: not found", code=code)
    fake("scontrol", SHOWN)
    rows = {row.id: row for row in query_jobs(study_folder, [])}
    assert states(rows.values()) == {
        "7_0": "RUNNING", "7_1": "TIMEOUT", "7_2": "PENDING", "7_3": "PENDING", "8_0": "GONE"
    }  # fmt: skip
    assert (rows["7_3"].reason, rows["7_3"].estimate) == ("Priority", "2026-06-01T14:00:00")


def test_sacct_alone_gives_states(study_folder, fake):
    fake("sacct", SACCT.replace("7_1|TIMEOUT|0:0\n", ""))
    result = states(query_jobs(study_folder, []))
    assert result == {"7_0": "RUNNING", "7_1": "GONE", "7_2": "FAILED", "7_3": "PENDING", "8_0": "PENDING"}


def test_job_unknown_to_sacct_waits(study_folder, fake):
    fake("sacct", "7_[0-3%2]|PENDING|0:0\n")
    assert states(query_jobs(study_folder, []))["8_0"] == "PENDING"


def test_heartbeats_replace_all_commands(study_folder, fake):
    for element in (0, 1, 2):
        Heartbeat(folder=study_folder, worker=Worker(job=f"7_{element}", host="n1", pid=element)).start(
            now=1.0
        )
    Heartbeat(folder=study_folder, worker=Worker(job="7_1", host="n1", pid=1)).end(now=2.0)
    old = time.time() - 1000
    os.utime(heartbeat_file(study_folder, "7_2"), (old, old))
    rows = {row.id: row for row in query_jobs(study_folder, [], lease_s=300)}
    assert states(rows.values()) == {
        "7_0": "RUNNING", "7_1": "COMPLETED", "7_2": "GONE", "7_3": "PENDING", "8_0": "PENDING"
    }  # fmt: skip
    assert "not seen yet" in rows["7_3"].reason
    failure = failure_by_job_state(list(rows.values()))(Worker(job="7_2", host="n1", pid=2))
    assert "its job 7_2 gave no heartbeat for 10" in failure.message


def test_running_trial_overrules_sign_off(study_folder, fake):
    me = Worker(job="12", host="n1", pid=1)
    Heartbeat(folder=study_folder, worker=me).start(now=1.0)
    Heartbeat(folder=study_folder, worker=me).end(now=2.0)
    assert states(query_jobs(study_folder, [running("12", beat=time.time())]))["12"] == "RUNNING"
    assert states(query_jobs(study_folder, [running("12", beat=time.time() - 1000)]))["12"] == "COMPLETED"


def test_last_worker_signs_the_end(study_folder):
    Heartbeat(folder=study_folder, worker=Worker(job="12", host="n1", pid=1)).start(now=1.0)
    Heartbeat(folder=study_folder, worker=Worker(job="12", host="n1", pid=2)).start(now=2.0)
    Heartbeat(folder=study_folder, worker=Worker(job="12", host="n1", pid=1)).end(now=3.0)
    assert read_heartbeat(study_folder, "12").end is None
    Heartbeat(folder=study_folder, worker=Worker(job="12", host="n1", pid=2)).end(now=4.0)
    assert read_heartbeat(study_folder, "12").end == 4.0


def test_follow_up_signs_start_and_end(study_folder, fake):
    me = Worker(job="8_0", host="n1", pid=1)
    with Heartbeat(folder=study_folder, worker=me).recorded(clock=time.time):
        assert states(query_jobs(study_folder, []))["8_0"] == "RUNNING"
    assert states(query_jobs(study_folder, []))["8_0"] == "COMPLETED"


def test_heartbeat_keeps_job_without_trial(study_folder, fake):
    me = Worker(job="7_0", host="n1", pid=1)
    Heartbeat(folder=study_folder, worker=me).start(now=1.0)
    os.utime(heartbeat_file(study_folder, "7_0"), (1.0, 1.0))
    Heartbeat(folder=study_folder, worker=me).renew()
    assert states(query_jobs(study_folder, []))["7_0"] == "RUNNING"


def test_ended_jobs_stay_gone(study_folder, fake):
    Heartbeat(folder=study_folder, worker=Worker(job="7_0", host="n1", pid=1)).start(now=1.0)
    trials = [running("7_0", beat=time.time() - 1)]
    assert states(query_jobs(study_folder, trials))["7_0"] == "RUNNING"
    for result in (query_jobs(study_folder, trials, ended=["7"]), query_jobs(study_folder, trials)):
        assert {state for id_, state in states(result).items() if id_ != "8_0"} == {"GONE"}
    Heartbeat(folder=study_folder, worker=Worker(job="7_0", host="n1", pid=3)).start(
        now=1.0
    )  # requeued by hand
    os.utime(heartbeat_file(study_folder, "7_0"), (time.time() + 1, time.time() + 1))
    assert states(query_jobs(study_folder, []))["7_0"] == "RUNNING"


def test_element_end_is_not_arrays(study_folder, fake):
    for element in (0, 1):
        Heartbeat(folder=study_folder, worker=Worker(job=f"7_{element}", host="n1", pid=element)).start(
            now=1.0
        )
    assert states(query_jobs(study_folder, [], ended=["7_0"])) == {
        "7_0": "GONE", "7_1": "RUNNING", "7_2": "PENDING", "7_3": "PENDING", "8_0": "PENDING"
    }  # fmt: skip


def test_jobs_cancelled_before_start(study_folder, fake):
    fake("scancel")
    cancel_jobs(study_folder, ["7", "8"])
    assert set(states(query_jobs(study_folder, [])).values()) == {"CANCELLED"}


def test_unreachable_controller_is_an_error(study_folder, fake):
    fake("squeue", "slurm_load_jobs error: Unable to contact slurm controller", code=1)
    fake("sacct", SACCT)
    with pytest.raises(ClusterError, match="Unable to contact"):
        query_jobs(study_folder, [])


def test_readers_share_one_answer(study_folder, fake):
    fake("squeue", QUEUE)
    first, second = cached_jobs(study_folder, []), cached_jobs(study_folder, [])
    assert first.rows == second.rows
    assert first.age_s == 0
    assert 0 < second.age_s < 30
    assert fake.calls("squeue") == 1


def test_query_refreshes_shared_answer(study_folder, fake):
    fake("squeue", QUEUE)
    cached_jobs(study_folder, [])
    fake("squeue", HEADER)
    assert set(states(query_jobs(study_folder, [])).values()) == {"GONE"}
    assert set(states(cached_jobs(study_folder, []).rows).values()) == {"GONE"}
    assert fake.calls("squeue") == 2


@pytest.mark.parametrize(("poll", "asked"), [("0", 3), ("1000", 1), ("", 1)])
def test_answer_age_is_configurable(study_folder, fake, monkeypatch, poll, asked):
    monkeypatch.setenv("HPOTUNE_POLL_S", poll)
    fake("squeue", QUEUE)
    for _ in range(3):
        cached_jobs(study_folder, [])
    assert fake.calls("squeue") == asked


def test_wrong_answer_age_is_refused(monkeypatch):
    monkeypatch.setenv("HPOTUNE_POLL_S", "often")
    with pytest.raises(StudyFileError, match=r"HPOTUNE_POLL_S='often': needs a number of seconds"):
        poll_s()


@pytest.mark.parametrize("asked_s", [-40, 500], ids=["old", "from a clock that is ahead"])
def test_old_answer_is_refreshed(study_folder, fake, asked_s):
    fake("squeue", QUEUE)
    cached_jobs(study_folder, [])
    path = study_folder.jobs / ".queue.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"asked": time.time() + asked_s}))
    cached_jobs(study_folder, [])
    assert fake.calls("squeue") == 2


def test_new_submission_refreshes_answer(study_folder, fake):
    fake("squeue", QUEUE)
    cached_jobs(study_folder, [])
    job = {"id": "9", "kind": "worker", "count": 1, "throttle": 1, "trials": None}
    write_atomic(study_folder.jobs / "9" / "job.json", json.dumps(job))
    assert states(cached_jobs(study_folder, []).rows)["9_0"] == "GONE"
    assert fake.calls("squeue") == 2


def test_hand_written_job_is_unknown_first(study_folder, fake):
    fake("squeue", QUEUE + "12|RUNNING|None|N/A\n")
    cached_jobs(study_folder, [])
    result = cached_jobs(study_folder, [running("12")])
    assert [(row.state, row.kind) for row in result.rows if row.id == "12"] == [("UNKNOWN", "own")]
    invalidate_cache(study_folder)
    result = cached_jobs(study_folder, [running("12")])
    assert [(row.state, row.kind) for row in result.rows if row.id == "12"] == [("RUNNING", "own")]


def test_missing_answer_is_shared_too(study_folder, fake):
    fake("squeue", "slurm_load_jobs error: Unable to contact slurm controller", code=1)
    for _ in range(2):
        result = cached_jobs(study_folder, [])
        assert "Unable to contact" in result.error
        assert set(states(result.rows).values()) == {"UNKNOWN"}
    assert fake.calls("squeue") == 1


def test_damaged_answer_is_refreshed(study_folder, fake):
    fake("squeue", QUEUE)
    write_atomic(study_folder.jobs / ".queue.json", "{")
    assert states(cached_jobs(study_folder, []).rows)["7_0"] == "RUNNING"


def test_submitted_jobs_are_oldest_first(study_folder):
    write_atomic(study_folder.jobs / "12" / "job.json", '{"id": "12", "kind": "worker", "count": 1}')
    assert [job.id for job in submitted_jobs(study_folder)] == ["7", "8", "12"]


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("7", ["7"]),
        ("7_3", ["7_3"]),
        ("7_[2-4%2]", ["7_2", "7_3", "7_4"]),
        ("7_[0,3-4,8-12:2]", ["7_0", "7_3", "7_4", "7_8", "7_10", "7_12"]),
    ],
)
def test_waiting_elements_are_expanded(name, ids):
    assert list(expand_ids(name)) == ids


def test_missing_command_differs_from_failure(fake):
    with pytest.raises(CommandMissing, match="sinfo not found"):
        run_command(["sinfo"])
    fake("sinfo", "slurm_load: error: no", code=1)
    with pytest.raises(ClusterError, match="sinfo failed") as result:
        run_command(["sinfo"])
    assert not isinstance(result.value, CommandMissing)


def test_long_lists_are_complete(fake, tmp_path, monkeypatch):
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\necho $SLURM_BITSTR_LEN\n")
    (tmp_path / "bin" / "squeue").chmod(0o755)
    assert run_command(["squeue"]).strip() == "0"

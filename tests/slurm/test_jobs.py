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
from hpotune.slurm.job_states import expand_ids
from hpotune.slurm.jobs import (
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

QUEUE = (
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
def place(tmp_path: Path) -> StudyFolder:
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


def test_one_squeue_tells_states_reasons_and_estimates(place, fake):
    fake("squeue", QUEUE)
    fake("sacct", SACCT)
    rows = {row.id: row for row in query_jobs(place, [])}
    assert states(rows.values()) == {
        "7_0": "RUNNING", "7_1": "TIMEOUT", "7_2": "FAILED", "7_3": "PENDING", "8_0": "PENDING"
    }  # fmt: skip
    assert rows["7_3"].estimate == "2026-06-01T14:00:00"
    assert (rows["7_3"].reason, rows["8_0"].reason, rows["7_0"].reason) == ("Resources", "Dependency", "")
    assert {row.estimate for id_, row in rows.items() if id_ != "7_3"} == {""}
    assert rows["7_2"].exit_code == "9:0"
    assert rows["8_0"].kind == "follow-up"
    assert (fake.calls("squeue"), fake.calls("sacct")) == (1, 1)


def test_without_sacct_the_controller_remembers_how_jobs_ended(place, fake):
    fake("squeue", QUEUE)
    assert states(query_jobs(place, []))["7_1"] == "TIMEOUT"
    assert states(query_jobs(place, []))["7_2"] == "GONE"


def test_accounting_that_is_late_keeps_no_job_alive(place, fake):
    fake("squeue", "8_0|PENDING|Dependency|N/A\n")
    fake("sacct", SACCT)
    assert states(query_jobs(place, []))["7_0"] == "GONE"


@pytest.mark.parametrize("code", [None, 127], ids=["absent", "a wrapper that finds nothing"])
def test_without_squeue_scontrol_is_asked(place, fake, code):
    if code:
        fake("squeue", "sh: squeue: not found", code=code)
    fake("scontrol", SHOWN)
    rows = {row.id: row for row in query_jobs(place, [])}
    assert states(rows.values()) == {
        "7_0": "RUNNING", "7_1": "TIMEOUT", "7_2": "PENDING", "7_3": "PENDING", "8_0": "GONE"
    }  # fmt: skip
    assert (rows["7_3"].reason, rows["7_3"].estimate) == ("Priority", "2026-06-01T14:00:00")


def test_sacct_alone_tells_waiting_running_and_ended_jobs(place, fake):
    fake("sacct", SACCT.replace("7_1|TIMEOUT|0:0\n", ""))
    told = states(query_jobs(place, []))
    assert told == {"7_0": "RUNNING", "7_1": "GONE", "7_2": "FAILED", "7_3": "PENDING", "8_0": "PENDING"}


def test_a_job_that_sacct_alone_does_not_know_yet_waits(place, fake):
    fake("sacct", "7_[0-3%2]|PENDING|0:0\n")
    assert states(query_jobs(place, []))["8_0"] == "PENDING"


def test_without_any_command_jobs_tell_by_their_files(place, fake):
    for element in (0, 1, 2):
        Heartbeat(folder=place, worker=Worker(job=f"7_{element}", host="n1", pid=element)).start(now=1.0)
    Heartbeat(folder=place, worker=Worker(job="7_1", host="n1", pid=1)).end(now=2.0)
    old = time.time() - 1000
    os.utime(heartbeat_file(place, "7_2"), (old, old))
    rows = {row.id: row for row in query_jobs(place, [], lease_s=300)}
    assert states(rows.values()) == {
        "7_0": "RUNNING", "7_1": "COMPLETED", "7_2": "GONE", "7_3": "PENDING", "8_0": "PENDING"
    }  # fmt: skip
    assert "not seen yet" in rows["7_3"].reason
    failure = failure_by_job_state(list(rows.values()))(Worker(job="7_2", host="n1", pid=2))
    assert "its job 7_2 gave no heartbeat for 10" in failure.message


def test_a_live_trial_counts_more_than_the_end_of_a_worker_beside_it(place, fake):
    me = Worker(job="12", host="n1", pid=1)
    Heartbeat(folder=place, worker=me).start(now=1.0)
    Heartbeat(folder=place, worker=me).end(now=2.0)
    assert states(query_jobs(place, [running("12", beat=time.time())]))["12"] == "RUNNING"
    assert states(query_jobs(place, [running("12", beat=time.time() - 1000)]))["12"] == "COMPLETED"


def test_only_the_worker_that_signed_last_signs_the_end(place):
    Heartbeat(folder=place, worker=Worker(job="12", host="n1", pid=1)).start(now=1.0)
    Heartbeat(folder=place, worker=Worker(job="12", host="n1", pid=2)).start(now=2.0)
    Heartbeat(folder=place, worker=Worker(job="12", host="n1", pid=1)).end(now=3.0)
    assert read_heartbeat(place, "12").end is None
    Heartbeat(folder=place, worker=Worker(job="12", host="n1", pid=2)).end(now=4.0)
    assert read_heartbeat(place, "12").end == 4.0


def test_a_step_signs_its_begin_and_its_end(place, fake):
    me = Worker(job="8_0", host="n1", pid=1)
    with Heartbeat(folder=place, worker=me).recorded(clock=time.time):
        assert states(query_jobs(place, []))["8_0"] == "RUNNING"
    assert states(query_jobs(place, []))["8_0"] == "COMPLETED"


def test_a_sign_of_life_keeps_a_job_that_has_no_trial(place, fake):
    me = Worker(job="7_0", host="n1", pid=1)
    Heartbeat(folder=place, worker=me).start(now=1.0)
    os.utime(heartbeat_file(place, "7_0"), (1.0, 1.0))
    Heartbeat(folder=place, worker=me).renew()
    assert states(query_jobs(place, []))["7_0"] == "RUNNING"


def test_jobs_that_slurm_has_told_to_have_ended_are_gone_from_then_on(place, fake):
    Heartbeat(folder=place, worker=Worker(job="7_0", host="n1", pid=1)).start(now=1.0)
    trials = [running("7_0", beat=time.time() - 1)]
    assert states(query_jobs(place, trials))["7_0"] == "RUNNING"
    for told in (query_jobs(place, trials, ended=["7"]), query_jobs(place, trials)):
        assert {state for id_, state in states(told).items() if id_ != "8_0"} == {"GONE"}
    Heartbeat(folder=place, worker=Worker(job="7_0", host="n1", pid=3)).start(now=1.0)  # requeued by hand
    os.utime(heartbeat_file(place, "7_0"), (time.time() + 1, time.time() + 1))
    assert states(query_jobs(place, []))["7_0"] == "RUNNING"


def test_the_end_of_one_element_is_not_that_of_its_array(place, fake):
    for element in (0, 1):
        Heartbeat(folder=place, worker=Worker(job=f"7_{element}", host="n1", pid=element)).start(now=1.0)
    assert states(query_jobs(place, [], ended=["7_0"])) == {
        "7_0": "GONE", "7_1": "RUNNING", "7_2": "PENDING", "7_3": "PENDING", "8_0": "PENDING"
    }  # fmt: skip


def test_jobs_that_were_cancelled_before_they_started_are_not_waited_for(place, fake):
    fake("scancel")
    cancel_jobs(place, ["7", "8"])
    assert set(states(query_jobs(place, [])).values()) == {"CANCELLED"}


def test_a_silent_controller_is_an_error_although_sacct_answers(place, fake):
    fake("squeue", "slurm_load_jobs error: Unable to contact slurm controller", code=1)
    fake("sacct", SACCT)
    with pytest.raises(ClusterError, match="Unable to contact"):
        query_jobs(place, [])


def test_those_who_only_look_ask_once_in_thirty_seconds(place, fake):
    fake("squeue", QUEUE)
    first, second = cached_jobs(place, []), cached_jobs(place, [])
    assert first.rows == second.rows
    assert first.age_s == 0
    assert 0 < second.age_s < 30
    assert fake.calls("squeue") == 1


def test_whoever_acts_asks_anew_and_those_who_look_see_it(place, fake):
    fake("squeue", QUEUE)
    cached_jobs(place, [])
    fake("squeue", "")
    assert set(states(query_jobs(place, [])).values()) == {"GONE"}
    assert set(states(cached_jobs(place, []).rows).values()) == {"GONE"}
    assert fake.calls("squeue") == 2


@pytest.mark.parametrize(("poll", "asked"), [("0", 3), ("1000", 1), ("", 1)])
def test_the_age_of_an_answer_is_a_variable(place, fake, monkeypatch, poll, asked):
    monkeypatch.setenv("HPOTUNE_POLL_S", poll)
    fake("squeue", QUEUE)
    for _ in range(3):
        cached_jobs(place, [])
    assert fake.calls("squeue") == asked


def test_an_age_that_is_no_number_is_the_users_mistake(monkeypatch):
    monkeypatch.setenv("HPOTUNE_POLL_S", "often")
    with pytest.raises(StudyFileError, match=r"HPOTUNE_POLL_S='often': needs a number of seconds"):
        poll_s()


@pytest.mark.parametrize("asked_s", [-40, 500], ids=["old", "from a clock that is ahead"])
def test_an_answer_that_is_not_young_is_asked_again(place, fake, asked_s):
    fake("squeue", QUEUE)
    cached_jobs(place, [])
    path = place.jobs / ".queue.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"asked": time.time() + asked_s}))
    cached_jobs(place, [])
    assert fake.calls("squeue") == 2


def test_a_submission_since_is_seen_at_once(place, fake):
    fake("squeue", QUEUE)
    cached_jobs(place, [])
    job = {"id": "9", "kind": "worker", "count": 1, "throttle": 1, "trials": None}
    write_atomic(place.jobs / "9" / "job.json", json.dumps(job))
    assert states(cached_jobs(place, []).rows)["9_0"] == "GONE"
    assert fake.calls("squeue") == 2


def test_a_job_written_by_hand_is_unknown_until_the_next_question(place, fake):
    fake("squeue", QUEUE + "12|RUNNING|None|N/A\n")
    cached_jobs(place, [])
    told = cached_jobs(place, [running("12")])
    assert [(row.state, row.kind) for row in told.rows if row.id == "12"] == [("UNKNOWN", "own")]
    invalidate_cache(place)
    told = cached_jobs(place, [running("12")])
    assert [(row.state, row.kind) for row in told.rows if row.id == "12"] == [("RUNNING", "own")]


def test_the_silence_of_a_controller_is_remembered_too(place, fake):
    fake("squeue", "slurm_load_jobs error: Unable to contact slurm controller", code=1)
    for _ in range(2):
        told = cached_jobs(place, [])
        assert "Unable to contact" in told.error
        assert set(states(told.rows).values()) == {"UNKNOWN"}
    assert fake.calls("squeue") == 1


def test_a_damaged_answer_is_asked_again(place, fake):
    fake("squeue", QUEUE)
    write_atomic(place.jobs / ".queue.json", "{")
    assert states(cached_jobs(place, []).rows)["7_0"] == "RUNNING"


def test_what_a_study_has_submitted_is_read_oldest_first(place):
    write_atomic(place.jobs / "12" / "job.json", '{"id": "12", "kind": "worker", "count": 1}')
    assert [job.id for job in submitted_jobs(place)] == ["7", "8", "12"]


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("7", ["7"]),
        ("7_3", ["7_3"]),
        ("7_[2-4%2]", ["7_2", "7_3", "7_4"]),
        ("7_[0,3-4,8-12:2]", ["7_0", "7_3", "7_4", "7_8", "7_10", "7_12"]),
    ],
)
def test_a_name_of_waiting_elements_stands_for_each(name, ids):
    assert list(expand_ids(name)) == ids


def test_a_command_that_is_not_there_is_told_from_one_that_fails(fake):
    with pytest.raises(CommandMissing, match="sinfo not found"):
        run_command(["sinfo"])
    fake("sinfo", "slurm_load: error: no", code=1)
    with pytest.raises(ClusterError, match="sinfo failed") as told:
        run_command(["sinfo"])
    assert not isinstance(told.value, CommandMissing)


def test_slurm_is_asked_for_long_lists_in_full(fake, tmp_path, monkeypatch):
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\necho $SLURM_BITSTR_LEN\n")
    (tmp_path / "bin" / "squeue").chmod(0o755)
    assert run_command(["squeue"]).strip() == "0"

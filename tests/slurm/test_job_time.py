"""When jobs end, by what Slurm's commands print. Fake commands."""

from __future__ import annotations

import json
import time
from datetime import datetime

import pytest

from hpotune.config.load import load_study
from hpotune.records.jobs import JobTimes
from hpotune.slurm.job_time import job_times, query_ends, query_times, unix_time
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.cluster_studies import function_study

START, END = "2026-06-01T12:00:00", "2026-06-01T13:00:00"
SHOWN = "JobId=9 ArrayJobId=7 ArrayTaskId=0 JobState=RUNNING TimeLimit=01:00:00 StartTime={} EndTime={}\n"


@pytest.fixture
def study_folder(tmp_path):
    folder = StudyFolder(path=tmp_path / "study")
    write_atomic(
        folder.jobs / "7" / "job.json", json.dumps({"id": "7", "kind": "worker", "count": 2, "time_min": 60})
    )
    return folder


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("start", "limit", "end", "expected"),
    [
        (START, "1:00:00", END, JobTimes(end=at(END), limit_s=3600.0)),
        (START, "5:00:00", END, JobTimes(end=at(END), limit_s=18000.0, preempted=True)),
        (START, "UNLIMITED", END, JobTimes(end=at(END))),
        ("N/A", "1:00:00", "N/A", None),
        ("a banner", "Ü", "", None),
    ],
    ids=["running", "preempted", "unlimited", "waiting", "garbage"],
)
def test_squeue_tells_the_end(study_folder, fake, start, limit, end, expected):
    fake("squeue", f"welcome to the cluster\n7_0|{start}|{limit}|{end}\n")
    assert query_times(study_folder, "7_0") == expected


def test_scontrol_tells_it_without_squeue(study_folder, fake):
    fake("scontrol", SHOWN.format(START, END))
    assert query_times(study_folder, "7_0") == JobTimes(end=at(END), limit_s=3600.0)


def test_nothing_tells_it(study_folder, fake):
    assert query_times(study_folder, "7_0") is None
    fake("squeue", "slurm_load_jobs error: Unable to contact slurm controller", code=1)
    assert query_times(study_folder, "7_0", 0.0) is None


def test_workers_share_one_answer(study_folder, fake):
    fake("squeue", f"7_0|{START}|1:00:00|{END}\n7_1|{START}|2:00:00|{END}\n")
    assert [query_times(study_folder, f"7_{n}").limit_s for n in (0, 1, 0)] == [3600.0, 7200.0, 3600.0]
    assert fake.calls("squeue") == 1
    query_times(study_folder, "7_0", 0.0)
    assert fake.calls("squeue") == 2


def test_time_needs_no_lock_file(study_folder, fake):
    fake("squeue", f"7_0|{START}|1:00:00|{END}\n")
    (study_folder.jobs / ".times.lock").mkdir()
    assert query_times(study_folder, "7_0") == JobTimes(end=at(END), limit_s=3600.0)


def test_time_needs_no_folder(tmp_path, fake):
    fake("squeue", f"7_0|{START}|1:00:00|{END}\n")
    (tmp_path / "study").touch()
    folder = StudyFolder(path=tmp_path / "study")
    assert query_times(folder, "7_0") == JobTimes(end=at(END), limit_s=3600.0)


def test_end_known_at_the_start(study_folder, make_study, fake):
    config = make_study().config
    assert job_times(study_folder, config, {}, job="7_0") is None
    env = {"SLURM_JOB_ID": "9", "HPOTUNE_JOB_START": "1000"}
    assert job_times(study_folder, config, env, job="7_0") == JobTimes(end=4600.0, limit_s=3600.0)
    env["SLURM_JOB_END_TIME"] = "5000"
    assert job_times(study_folder, config, env, job="7_0") == JobTimes(end=5000.0, limit_s=3600.0)
    fake("squeue", f"12|{START}|1:00:00|{END}\n")  # a hand-written script's job
    assert job_times(study_folder, config, {"SLURM_JOB_ID": "12"}, job="12").end == at(END)


def test_ends_of_cancelled_arrays(fake):
    fake("squeue", f"7_0|CANCELLED|{END}\n7_1|RUNNING|N/A\n9|CANCELLED|{START}\n")
    fake("sacct", f"7_2|CANCELLED by 0|{START}\n8_[0-1%2]|CANCELLED by 0|{END}\n")
    assert query_ends(["7_0", "8_0"]) == {
        "7_0": ("CANCELLED", at(END)), "7_2": ("CANCELLED", at(START)), "9": ("CANCELLED", at(START)),
        "8_0": ("CANCELLED", at(END)), "8_1": ("CANCELLED", at(END)),
    }  # fmt: skip


def test_unknown_times_are_none():
    assert [unix_time(text) for text in ("Unknown", "N/A", "", "1 hour ago")] == [None] * 4
    assert time.localtime(unix_time(START)).tm_hour == 12


@pytest.mark.parametrize(
    ("env", "ends_s"),
    [({}, 3600.0), ({"HPOTUNE_ALLOCATION_END": "1500"}, 500.0), ({"HPOTUNE_ALLOCATION_END": "9999"}, 3600.0)],
)
def test_tasks_end_with_their_allocation(study_folder, fake, env, ends_s):
    fake("squeue", f"7_0|{START}|1:00:00|{END}\n")
    config = load_study(
        function_study(study_folder.path.parent, "pass", "execution: {place: hyperqueue}")
    ).config
    env = {"HPOTUNE_TASK": "7_0", "HPOTUNE_JOB_START": "1000", "SLURM_JOB_ID": "9", **env}
    assert job_times(study_folder, config, env, job="7_0") == JobTimes(end=1000.0 + ends_s, limit_s=3600.0)
    assert fake.calls("squeue") == 0

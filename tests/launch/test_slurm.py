"""What Slurm is asked for, and what is said when it does not answer: without a Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime

import pytest

from hpotune.errors import ClusterError, StudyFileError
from hpotune.launch import queue, step
from hpotune.launch.cancel import cancelled_mark
from hpotune.launch.dead import lost
from hpotune.launch.gpus import deal, visible_gpus
from hpotune.launch.queue import rows_or_unknown
from hpotune.launch.slurm import _check_extra, clean_environment, parameters, split, worker_command
from hpotune.plan.next import JobRow, JobSpec
from hpotune.store import Store
from hpotune.study.folder import StudyFolder, write_atomic
from hpotune.study.trial import Worker

WORKER = JobSpec(count=4, throttle=2)
STEP = JobSpec(kind="step", count=1, throttle=1, after=("7",))


@pytest.fixture
def place(make_study, make_study_folder, tmp_path):
    """A study's folder with one recorded job, and its store."""
    study, url = make_study(), f"sqlite:///{tmp_path}/store.db"
    folder = make_study_folder(study, url)
    recorded = '{"id": "7", "kind": "worker", "count": 2, "throttle": 2, "trials": 1}'
    write_atomic(folder.jobs / "7" / "job.json", recorded)
    return folder, Store.create(url, study, folder=str(folder.path))


@pytest.fixture
def silent(monkeypatch):
    """A Slurm whose controller is away."""

    def run(command, **_: object) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="error: Unable to contact slurm controller")

    monkeypatch.setattr(queue.subprocess, "run", run)


@pytest.mark.parametrize(
    ("count", "throttle", "at_most", "parts"),
    [
        (4, 2, None, [(4, 2)]),
        (4, 2, 4, [(4, 2)]),
        (5, 3, 2, [(2, 1), (2, 1), (1, 1)]),
        (5, 4, 3, [(3, 2), (2, 2)]),
        (9, 1, 3, [(3, 1)]),
    ],
)
def test_a_long_array_is_split_and_its_throttle_shared(count, throttle, at_most, parts):
    found = split(JobSpec(count=count, throttle=throttle, trials=1), at_most=at_most)
    assert [(spec.count, spec.throttle) for spec in found] == parts
    assert all(spec.trials == 1 for spec in found)


@pytest.mark.parametrize(
    ("venv", "python"), [("auto", sys.executable), (None, "python"), ("/opt/env", "/opt/env/bin/python")]
)
def test_a_job_runs_the_python_of_its_environment(make_study, tmp_path, venv, python):
    config = make_study(env={"venv": venv}).config
    for spec in (WORKER, STEP):
        command = worker_command(StudyFolder(path=tmp_path), config, spec)
        assert command.startswith(f"{python} -m hpotune {spec.kind} ")


def test_the_follow_up_gets_no_option_that_asks_for_resources(make_study):
    extra = {"licenses": "matlab", "exclusive": True, "requeue": False, "mail_type": "END"}
    config = make_study(resources={"extra": extra}).config
    assert parameters(config, STEP)["additional_parameters"] == {"mail_type": "END"}
    worker = {"licenses": "matlab", "exclusive": True, "mail_type": "END"}
    assert parameters(config, WORKER)["additional_parameters"] == worker


def test_an_option_that_is_ours_is_refused_with_what_sets_it(make_study):
    config = make_study(resources={"extra": {"job_name": "x", "signal": "USR1"}}).config
    with pytest.raises(StudyFileError) as told:
        _check_extra(config)
    assert told.value.mistakes[0].endswith("job_name is set by hpotune; what sets it: name")
    assert "resources.signal_delay_s" in told.value.mistakes[1]


def test_the_users_own_defaults_reach_sbatch(monkeypatch):
    for name in ("SBATCH_ACCOUNT", "SLURM_JOB_ID", "SRUN_CPUS_PER_TASK"):
        monkeypatch.setenv(name, "1")
    with clean_environment():
        assert "SBATCH_ACCOUNT" in os.environ
        assert not {"SLURM_JOB_ID", "SRUN_CPUS_PER_TASK"} & set(os.environ)
    assert {"SLURM_JOB_ID", "SRUN_CPUS_PER_TASK"} <= set(os.environ)


def test_where_slurm_is_silent_its_jobs_are_unknown_and_no_trial_is_lost(place, silent):
    folder, store = place
    store.claim(Worker(job="7_0", host="n1", pid=1))
    jobs, why = rows_or_unknown(folder, store.rows())
    assert [(job.id, job.state, job.kind) for job in jobs] == [
        ("7_0", "UNKNOWN", "worker"),
        ("7_1", "UNKNOWN", "worker"),
    ]
    assert "Unable to contact" in why
    assert lost(store, jobs) == []


def test_a_follow_up_asks_a_silent_slurm_again(place, silent, monkeypatch):
    folder, store = place
    waits: list[float] = []
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(step.time, "sleep", waits.append)
    monkeypatch.setattr(step.time, "monotonic", lambda: next(clock))
    with pytest.raises(ClusterError, match="Unable to contact"):
        step.step(folder, store, folder.load().config, now=datetime.now(), alone_at_work=True)
    assert len(waits) > 3


@pytest.mark.parametrize(
    ("states", "marked", "said"),
    [
        (["CANCELLED", "COMPLETED"], False, "job 7 was cancelled"),
        (["CANCELLED", "GONE"], False, "job 7 was cancelled"),
        (["COMPLETED", "COMPLETED"], True, "the study was cancelled"),
    ],
)
def test_a_follow_up_submits_nothing_that_the_user_cancelled(place, monkeypatch, states, marked, said):
    folder, store = place
    rows = [JobRow(id=f"7_{index}", state=state) for index, state in enumerate(states)]
    monkeypatch.setattr(step, "job_rows", lambda *_: rows)
    if marked:
        cancelled_mark(folder).touch()
    done = step.step(folder, store, folder.load().config, now=datetime.now(), alone_at_work=True)
    assert done.submitted == ()
    assert said in done.warning


def test_a_follow_up_that_is_refused_is_a_warning(place, monkeypatch):
    folder, store = place
    cancelled_mark(folder).touch()

    def submit(_: object, __: object, spec: JobSpec) -> str:
        if spec.kind == "step":
            raise ClusterError("Slurm refused the job: too many")
        return "8"

    monkeypatch.setattr(step, "job_rows", lambda *_: [])
    monkeypatch.setattr(step, "submit", submit)
    monkeypatch.setattr(step, "max_array_size", lambda: None)
    done = step.step(folder, store, folder.load().config, now=datetime.now())
    assert done.submitted == ("8",)
    assert "submitted 8, but not the follow-up step" in done.warning
    assert not cancelled_mark(folder).exists()


@pytest.mark.parametrize(
    ("named", "found"),
    [("", []), ("-1", []), ("3", ["3"]), ("0,1,-1,2", ["0", "1"]), ("GPU-a, 2", ["GPU-a", "2"])],
)
def test_visible_gpus_are_those_that_cuda_would_see(named, found):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": named}) == found


def test_gpus_are_dealt_in_groups_and_too_few_are_an_error():
    assert deal(["0", "1", "2"], each=1) == ["0", "1", "2"]
    assert deal(["0", "1", "2"], each=2) == ["0,1"]
    assert deal([], each=2) == deal(["0"], each=0) == []
    with pytest.raises(StudyFileError, match=r"resources.gpus: 2, but this machine shows 1"):
        deal(["0"], each=2)

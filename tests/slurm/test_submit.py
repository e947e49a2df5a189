"""What Slurm is asked for, and what is said when it does not answer: without a Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime

import pytest

from hpotune.checks.gpus import deal, visible_gpus
from hpotune.errors import ClusterError, StudyFileError
from hpotune.launch import follow_up
from hpotune.launch.stale_workers import lost_trials
from hpotune.records.jobs import JobRow, JobSpec
from hpotune.records.trial import Worker
from hpotune.slurm import commands
from hpotune.slurm.jobs import cached_jobs
from hpotune.slurm.submit import (
    SubmitResult,
    _check_extra,
    clean_environment,
    setup_lines,
    split_array,
    submit_within_limits,
    submitit_parameters,
    worker_command,
)
from hpotune.slurm.user_limits import SubmitLimitReached, named_limit, refusal_error
from hpotune.storage import TrialQueue
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder

WORKER = JobSpec(count=4, throttle=2)
STEP = JobSpec(kind="follow-up", count=1, throttle=1, after=("7",))


@pytest.fixture
def place(make_study, make_study_folder, tmp_path):
    """A study's folder with one recorded job, and its store."""
    study, url = make_study(), f"sqlite:///{tmp_path}/store.db"
    folder = make_study_folder(study, url)
    recorded = '{"id": "7", "kind": "worker", "count": 2, "throttle": 2, "trials": 1}'
    write_atomic(folder.jobs / "7" / "job.json", recorded)
    return folder, TrialQueue.create(url, study, folder=str(folder.path))


@pytest.fixture
def silent(monkeypatch):
    """A Slurm whose controller is away."""

    def run(command, **_: object) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="error: Unable to contact slurm controller")

    monkeypatch.setattr(commands.subprocess, "run", run)


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
    found = split_array(JobSpec(count=count, throttle=throttle, trials=1), at_most=at_most)
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
    assert submitit_parameters(config, STEP)["additional_parameters"] == {"mail_type": "END"}
    worker = {"licenses": "matlab", "exclusive": True, "mail_type": "END"}
    assert submitit_parameters(config, WORKER)["additional_parameters"] == worker


def test_an_option_that_is_ours_is_refused_with_what_sets_it(make_study):
    config = make_study(resources={"extra": {"job_name": "x", "signal": "USR1"}}).config
    with pytest.raises(StudyFileError) as told:
        _check_extra(config)
    assert told.value.mistakes[0].endswith("job_name is set by hpotune; what sets it: name")
    assert "resources.signal_delay_s" in told.value.mistakes[1]


def test_a_job_gets_its_trials_its_code_and_the_follow_up(make_study, tmp_path):
    folder, two = StudyFolder(path=tmp_path), replace(WORKER, trials=2)
    config = make_study().config
    assert worker_command(folder, config, WORKER).endswith(f" worker {tmp_path}")
    assert worker_command(folder, config, two, code="ab12").endswith(f"{tmp_path} --trials 2 --code ab12")
    config = make_study(resources={"follow_up": "worker"}).config
    assert worker_command(folder, config, two).endswith("--trials 2 --follow-up")


def test_a_step_is_told_what_has_ended_where_slurm_says_it(make_study, tmp_path):
    folder, config, after = StudyFolder(path=tmp_path), make_study().config, ("7", "9")
    assert worker_command(folder, config, replace(STEP, after=after)).endswith(
        f" step {tmp_path} --ended 7,9"
    )
    assert worker_command(folder, config, replace(STEP, after=after, any_of=True)).endswith(
        f" step {tmp_path}"
    )


@pytest.mark.parametrize(
    ("any_of", "text"), [(False, "afterany:7_0:7_1"), (True, "afterany:7_0?afterany:7_1")], ids=["all", "any"]
)
def test_a_step_waits_for_all_or_for_any(make_study, any_of, text):
    spec = replace(STEP, after=("7_0", "7_1"), any_of=any_of)
    assert submitit_parameters(make_study().config, spec)["dependency"] == text


@pytest.mark.parametrize(
    ("named", "bad", "excluded"),
    [(None, (), None), ("n[7-9]", (), "n[7-9]"), (None, ("n2", "n3"), "n2,n3"), ("n9", ("n2",), "n9,n2")],
)
def test_nodes_that_failed_are_left_out_beside_those_of_the_file(make_study, named, bad, excluded):
    config = make_study(resources={"exclude": named} if named else None).config
    assert submitit_parameters(config, replace(WORKER, exclude=bad)).get("exclude") == excluded
    assert "exclude" not in submitit_parameters(config, replace(STEP, exclude=bad))


@pytest.mark.parametrize(
    ("asked", "emitted"),
    [
        ({}, {}),
        ({"mem": "64G"}, {"mem": "64G"}),
        ({"mem_per_cpu": "4G"}, {"mem_per_cpu": "4G"}),
        ({"mem_per_gpu": "32G", "gpus": 2}, {"mem_per_gpu": "32G"}),
    ],
    ids=["none", "mem", "mem_per_cpu", "mem_per_gpu"],
)
def test_only_the_form_of_memory_that_was_chosen_is_sent(make_study, asked, emitted):
    found = submitit_parameters(make_study(resources=asked).config, WORKER)
    assert {key: value for key, value in found.items() if key.startswith("mem")} == emitted


@pytest.mark.parametrize("named", [None, "mine"])
def test_the_wckey_is_the_users_or_none(make_study, named):
    config = make_study(resources={"wckey": named}).config
    for spec in (WORKER, STEP):
        assert submitit_parameters(config, spec)["wckey"] == named


def test_a_job_hands_its_cpus_to_its_steps(make_study):
    assert "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK" in "\n".join(setup_lines(make_study().config))


REFUSED = (
    "sbatch: error: {}\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit "
    "limit, user's size and/or time limits)\n"
)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (REFUSED.format("AssocMaxSubmitJobLimit"), "AssocMaxSubmitJobLimit"),
        (REFUSED.format("QOSMaxSubmitJobPerUserLimit"), "QOSMaxSubmitJobPerUserLimit"),
        (REFUSED.format("QOSGrpSubmitJobsLimit"), "QOSGrpSubmitJobsLimit"),
        ("sbatch: error: Batch job submission failed: Resource temporarily unavailable", "MaxJobCount"),
        ("sbatch: error: invalid partition specified: x", ""),
    ],
)
def test_a_refusal_tells_whether_fewer_jobs_might_be_taken(text, limit):
    assert named_limit(text) == limit
    error = refusal_error(text)
    assert isinstance(error, SubmitLimitReached) == bool(limit)
    assert limit in str(error)


@pytest.fixture
def limited(monkeypatch):
    """A cluster that takes only so many jobs; `sizes` are the arrays it was sent."""

    def made(most: int, *, known: bool) -> list[int]:
        sizes: list[int] = []

        def submit(_: object, __: object, spec: JobSpec, *, code: str | None) -> str:
            sizes.append(spec.count)
            if spec.count > most:
                raise SubmitLimitReached("Slurm refused the job: too many", limit="AssocMaxSubmitJobLimit")
            return "8"

        monkeypatch.setattr(submit, "submit", submit)
        monkeypatch.setattr(submit, "room", lambda _: most if known else None)
        monkeypatch.setattr(submit, "_would_take", lambda _, __, spec: spec.count <= most)
        return sizes

    return made


@pytest.mark.parametrize(
    ("most", "known", "taken"),
    [
        (20, False, 16),
        (16, False, 16),
        (10, False, 8),
        (10, True, 9),
        (8, False, 4),
        (8, True, 7),
        (1, False, 1),
    ],
)
def test_an_array_beyond_a_limit_shrinks_until_it_fits_with_the_step(
    make_study, tmp_path, limited, most, known, taken
):
    sizes = limited(most, known=known)
    spec = JobSpec(count=16, throttle=8)
    found = submit_within_limits(StudyFolder(path=tmp_path), make_study().config, spec)
    assert (found.id, found.count) == ("8", taken)
    assert sizes[-1] == taken
    assert bool(found.note) == (taken < 16)


def test_without_a_follow_up_job_no_room_is_left_for_it(make_study, tmp_path, limited):
    limited(8, known=False)
    config = make_study(resources={"follow_up": "worker"}).config
    assert submit_within_limits(StudyFolder(path=tmp_path), config, JobSpec(count=16, throttle=8)).count == 8


def test_where_not_even_one_job_is_taken_the_limit_is_the_error(make_study, tmp_path, limited):
    limited(0, known=True)
    with pytest.raises(SubmitLimitReached, match="too many"):
        submit_within_limits(StudyFolder(path=tmp_path), make_study().config, JobSpec(count=4, throttle=4))


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
    told = cached_jobs(folder, store.rows())
    jobs, why = told.rows, told.error
    assert [(job.id, job.state, job.kind) for job in jobs] == [
        ("7_0", "UNKNOWN", "worker"),
        ("7_1", "UNKNOWN", "worker"),
    ]
    assert "Unable to contact" in why
    assert lost_trials(store.rows(), jobs, lease_s=300) == []


def test_a_follow_up_asks_a_silent_slurm_again(place, silent, monkeypatch):
    folder, store = place
    waits: list[float] = []
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(follow_up.time, "sleep", waits.append)
    monkeypatch.setattr(follow_up.time, "monotonic", lambda: next(clock))
    with pytest.raises(ClusterError, match="Unable to contact"):
        follow_up.follow_up(folder, store, folder.load().config, now=datetime.now(), unattended=True)
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
    monkeypatch.setattr(follow_up, "job_rows", lambda *_, **__: rows)
    if marked:
        folder.cancelled.touch()
    done = follow_up.follow_up(folder, store, folder.load().config, now=datetime.now(), unattended=True)
    assert done.submitted == ()
    assert said in done.warning


@pytest.mark.parametrize(
    ("state", "reason", "left"),
    [
        ("PENDING", "Dependency", ()),
        ("PENDING", "Priority", ()),
        ("PENDING", "BeginTime", ("9",)),
        ("PENDING", "launch failed requeued held", ("9",)),
        ("PENDING", "JobHoldMaxRequeue", ("9",)),
        ("RUNNING", "", ("9",)),
        ("COMPLETING", "", ("9",)),
        ("COMPLETED", "", ("9",)),
    ],
)
def test_only_a_step_that_is_still_to_look_stands_for_the_follow_up(place, monkeypatch, state, reason, left):
    folder, store = place
    rows = [JobRow(id=f"7_{index}", state="RUNNING") for index in range(9)]
    rows.append(JobRow(id="8_0", state=state, kind="follow-up", reason=reason))
    monkeypatch.setattr(follow_up, "job_rows", lambda *_, **__: rows)
    monkeypatch.setattr(follow_up, "submit", lambda *_: "9")
    done = follow_up.follow_up(folder, store, folder.load().config, now=datetime.now(), unattended=True)
    assert done.submitted == left


def test_a_follow_up_that_is_refused_is_a_warning(place, monkeypatch):
    folder, store = place
    folder.cancelled.touch()

    def submit(*_: object) -> str:
        raise ClusterError("Slurm refused the job: too many")

    monkeypatch.setattr(follow_up, "job_rows", lambda *_, **__: [])
    monkeypatch.setattr(follow_up, "submit", submit)
    monkeypatch.setattr(follow_up, "submit_as_many", lambda *_, **__: SubmitResult(id="8", count=1))
    monkeypatch.setattr(follow_up, "max_array_size", lambda: None)
    done = follow_up.follow_up(folder, store, folder.load().config, now=datetime.now())
    assert done.submitted == ("8",)
    assert "submitted 8, and not the follow-up step" in done.warning
    assert not folder.cancelled.exists()


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

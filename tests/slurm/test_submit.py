"""sbatch options and commands, limits, follow-ups, and an unreachable controller; without a Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from functools import partial
from types import SimpleNamespace

import pytest

from hpotune.errors import ClusterError
from hpotune.launch import cancellation, follow_up
from hpotune.launch.stale_workers import lost_trials
from hpotune.records.jobs import JobRow, JobSpec
from hpotune.records.trial import Failure, Worker
from hpotune.slurm import submit as slurm_submit
from hpotune.slurm.cluster_limits import SubmitLimitReached, named_limit, refusal_error
from hpotune.slurm.job_arrays import split_array
from hpotune.slurm.job_script import (
    clean_environment,
    job_python,
    setup_lines,
    submitit_parameters,
    worker_command,
)
from hpotune.slurm.study_jobs import cached_jobs
from hpotune.slurm.submit import SubmitResult, _check_one_cluster, submit_within_limits
from hpotune.storage import TrialQueue
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder

WORKER = JobSpec(count=4, throttle=2)
FOLLOW_UP = JobSpec(kind="follow-up", count=1, throttle=1, after=("7",))


@pytest.fixture
def study_folder(make_study, make_study_folder, tmp_path):
    """A study's folder with one recorded job, and its store."""
    study, url = make_study(), f"sqlite:///{tmp_path}/store.db"
    folder = make_study_folder(study, url)
    recorded = '{"id": "7", "kind": "worker", "count": 2, "throttle": 2, "trials": 1}'
    write_atomic(folder.jobs / "7" / "job.json", recorded)
    return folder, TrialQueue.create(url, study, folder=str(folder.path))


@pytest.fixture
def silent(fake):
    """A Slurm whose controller is away."""
    for name in ("squeue", "scontrol", "sinfo"):
        fake(name, "slurm_load_jobs error: Unable to contact slurm controller", code=1)


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
def test_long_array_is_split(count, throttle, at_most, parts):
    found = split_array(JobSpec(count=count, throttle=throttle, trials=1), at_most=at_most)
    assert [(spec.count, spec.throttle) for spec in found] == parts
    assert all(spec.trials == 1 for spec in found)


@pytest.mark.parametrize(
    ("venv", "python"), [("auto", sys.executable), (None, "python"), ("/opt/env", "/opt/env/bin/python")]
)
def test_job_runs_configured_python(make_study, tmp_path, venv, python):
    config = make_study(env={"venv": venv}).config
    for spec in (WORKER, FOLLOW_UP):
        command = worker_command(StudyFolder(path=tmp_path), config, spec)
        assert command.startswith(f"{python} -m hpotune {spec.kind} ")


def test_follow_up_requests_no_resources(make_study):
    extra = {"licenses": "matlab", "exclusive": True, "requeue": False, "mail_type": "END"}
    config = make_study(resources={"extra": extra}).config
    assert submitit_parameters(config, FOLLOW_UP)["additional_parameters"] == {"mail_type": "END"}
    worker = {"licenses": "matlab", "exclusive": True, "mail_type": "END"}
    assert submitit_parameters(config, WORKER)["additional_parameters"] == worker


def test_job_of_several_clusters_is_refused(fake, monkeypatch):
    fake("env", "ClusterName             = gpu1\n")
    monkeypatch.setenv("SLURM_CLUSTERS", "gpu1")
    _check_one_cluster(os.environ)
    monkeypatch.setenv("SBATCH_CLUSTERS", "gpu1,gpu2")
    with pytest.raises(
        ClusterError, match=r"SBATCH_CLUSTERS=gpu1,gpu2 sends jobs to other clusters than this one"
    ):
        _check_one_cluster(os.environ)


@pytest.mark.parametrize("unattended", [True, False])
def test_every_node_counts_as_broken(study_folder, fake, monkeypatch, unattended):
    folder, store = study_folder
    for number in range(2):
        claim = store.claim(Worker(job=f"7_{number}", host=f"n{number}", pid=1))
        store.record_failure(
            claim.trial_id, Failure(cause="node", message="ECC error"), owner=claim.row.worker
        )
    fake("sinfo", "NODELIST|PARTITION\nn0|a100*\nn1|a100*\nm0|other\n")
    monkeypatch.setattr(follow_up, "query_jobs", lambda *_, **__: [])
    sent: list[JobSpec] = []

    def submit(_: object, __: object, spec: JobSpec, **___: object) -> SubmitResult:
        sent.append(spec)
        return SubmitResult(id="8", count=spec.count)

    monkeypatch.setattr(follow_up, "submit_within_limits", submit)
    monkeypatch.setattr(follow_up, "submit", lambda *_: "9")
    call = partial(follow_up.follow_up, folder, store, folder.load().config, now=datetime.now())
    if unattended:
        with pytest.raises(
            ClusterError, match=r"every node that the study may use \(n0, n1\), so no further job"
        ):
            call(unattended=True)
        assert (sent, folder.nodes_tried_again) == ([], 0.0)
        return
    assert "all are tried again" in call().warning
    assert [spec.exclude for spec in sent] == [()]
    assert folder.nodes_tried_again > 0


def test_worker_command_has_its_options(make_study, tmp_path):
    folder, two = StudyFolder(path=tmp_path), replace(WORKER, trials=2)
    config = make_study().config
    assert worker_command(folder, config, WORKER).endswith(f" worker {tmp_path}")
    assert worker_command(folder, config, two, code="ab12").endswith(f"{tmp_path} --trials 2 --code ab12")
    config = make_study(resources={"follow_up": "worker"}).config
    assert worker_command(folder, config, two).endswith("--trials 2 --follow-up")


def test_follow_up_command_names_ended_jobs(make_study, tmp_path):
    folder, config, after = StudyFolder(path=tmp_path), make_study().config, ("7", "9")
    assert worker_command(folder, config, replace(FOLLOW_UP, after=after)).endswith(
        f" follow-up {tmp_path} --ended 7,9"
    )
    assert worker_command(folder, config, replace(FOLLOW_UP, after=after, any_of=True)).endswith(
        f" follow-up {tmp_path}"
    )


@pytest.mark.parametrize(
    ("any_of", "text"), [(False, "afterany:7_0:7_1"), (True, "afterany:7_0?afterany:7_1")], ids=["all", "any"]
)
def test_follow_up_depends_on_jobs(make_study, any_of, text):
    spec = replace(FOLLOW_UP, after=("7_0", "7_1"), any_of=any_of)
    assert submitit_parameters(make_study().config, spec)["dependency"] == text


@pytest.mark.parametrize(
    ("named", "bad", "excluded"),
    [(None, (), None), ("n[7-9]", (), "n[7-9]"), (None, ("n2", "n3"), "n2,n3"), ("n9", ("n2",), "n9,n2")],
)
def test_bad_nodes_are_excluded(make_study, named, bad, excluded):
    config = make_study(resources={"exclude": named} if named else None).config
    assert submitit_parameters(config, replace(WORKER, exclude=bad)).get("exclude") == excluded
    assert "exclude" not in submitit_parameters(config, replace(FOLLOW_UP, exclude=bad))


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
def test_only_chosen_memory_option_is_sent(make_study, asked, emitted):
    found = submitit_parameters(make_study(resources=asked).config, WORKER)
    assert {key: value for key, value in found.items() if key.startswith("mem")} == emitted


@pytest.mark.parametrize("named", [None, "mine"])
def test_wckey_is_the_users(make_study, named):
    config = make_study(resources={"wckey": named}).config
    for spec in (WORKER, FOLLOW_UP):
        assert submitit_parameters(config, spec)["wckey"] == named


def test_job_exports_cpus_to_steps(make_study):
    assert "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK" in "\n".join(setup_lines(make_study().config))


def test_conda_environment_is_activated(make_study, tmp_path):
    """By its folder: conda itself need not be there, and its packages' own scripts are run."""
    prefix = tmp_path / "a b"
    for folder in ("conda-meta", "bin", "etc/conda/activate.d"):
        (prefix / folder).mkdir(parents=True)
    (prefix / "bin/python").write_text("#!/bin/sh\necho python of conda\n")
    (prefix / "bin/python").chmod(0o755)
    (prefix / "etc/conda/activate.d/cuda.sh").write_text("export OF_PACKAGE=$CONDA_PREFIX/cuda\n")
    config = make_study(env={"venv": str(prefix)}).config
    script = "\n".join(["set -u", "SLURM_CPUS_PER_TASK=", *setup_lines(config), "python", "echo $OF_PACKAGE"])
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["python of conda", f"{prefix}/cuda"]
    assert job_python(config) == f"{prefix}/bin/python"


@pytest.mark.parametrize("own", [None, "", "1"])
def test_job_imports_nothing_from_here(make_study, make_study_folder, tmp_path, own):
    """In the folder where sbatch is called lies a module; the trial's own program finds the one beside it."""
    seen = "import os, beside\nprint(beside.A, '=', os.environ.get('PYTHONSAFEPATH'))\nprint(1.0)\n"
    setup = [] if own is None else [f"export PYTHONSAFEPATH={own}"]
    study = make_study(
        python=None,
        command=f"{sys.executable} own.py {{x}}",
        budget={"trials": 1},
        env={"setup": setup},
    )
    home, here = study.source.path.parent, tmp_path / "here"
    (home / "own.py").write_text(seen)
    (home / "beside.py").write_text("A = 'neighbour'\n")
    folder = make_study_folder(study, f"sqlite:///{tmp_path}/store.db")
    TrialQueue.create(f"sqlite:///{tmp_path}/store.db", study, folder=str(folder.path))
    here.mkdir()
    for name in ("pydantic", "typer", "beside"):
        (here / f"{name}.py").write_text("raise SystemExit('planted')\n")
    script = "\n".join(["set -u", "SLURM_CPUS_PER_TASK=", *setup_lines(study.config)])
    env = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{worker_command(folder, study.config, WORKER)}"],
        cwd=here, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if own == "":  # the user wants the usual path
        assert "planted" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    log = (folder.trial(0) / "log.txt").read_text()
    assert ("neighbour = None" in log) == (own is None)
    assert "planted" not in log


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
        (REFUSED.format("QOSMaxWallDurationPerJobLimit"), ""),
        (REFUSED.format("AssocGrpCPUMinutesLimit"), ""),
    ],
)
def test_refusal_names_the_limit(text, limit):
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

        monkeypatch.setattr(slurm_submit, "submit", submit)
        monkeypatch.setattr(slurm_submit, "free_submit_slots", lambda _: most if known else None)
        monkeypatch.setattr(slurm_submit, "limits_are_enforced", lambda: True)
        full = SubmitLimitReached("Slurm refused the job: too many", limit="AssocMaxSubmitJobLimit")
        monkeypatch.setattr(slurm_submit, "_no_room", lambda _, __, spec: full if spec.count > most else None)
        return sizes

    return made


@pytest.mark.parametrize(
    ("most", "known", "taken"),
    [
        (20, False, 16),
        (17, False, 16),
        (16, True, 15),
        (10, False, 8),
        (10, True, 9),
        (8, False, 4),
        (8, True, 7),
        (1, False, 1),
    ],
)
def test_array_shrinks_to_submit_limit(make_study, tmp_path, limited, most, known, taken):
    sizes = limited(most, known=known)
    spec = JobSpec(count=16, throttle=8)
    found = submit_within_limits(StudyFolder(path=tmp_path), make_study().config, spec)
    assert (found.id, found.count) == ("8", taken)
    assert sizes[-1] == taken
    assert bool(found.limit) == (taken < 16)


def test_follow_up_room_is_kept(make_study, tmp_path, limited):
    limited(1, known=True)
    spec = JobSpec(count=4, throttle=4)
    with pytest.raises(SubmitLimitReached):
        submit_within_limits(StudyFolder(path=tmp_path), make_study().config, spec, last_resort=False)


def test_no_room_without_follow_up(make_study, tmp_path, limited):
    limited(8, known=False)
    config = make_study(resources={"follow_up": "worker"}).config
    assert submit_within_limits(StudyFolder(path=tmp_path), config, JobSpec(count=16, throttle=8)).count == 8


def test_exhausted_limit_is_an_error(make_study, tmp_path, limited):
    limited(0, known=True)
    with pytest.raises(SubmitLimitReached, match="too many"):
        submit_within_limits(StudyFolder(path=tmp_path), make_study().config, JobSpec(count=4, throttle=4))


def test_user_defaults_reach_sbatch(monkeypatch):
    for name in ("SBATCH_ACCOUNT", "SLURM_JOB_ID", "SRUN_CPUS_PER_TASK"):
        monkeypatch.setenv(name, "1")
    with clean_environment():
        assert "SBATCH_ACCOUNT" in os.environ
        assert not {"SLURM_JOB_ID", "SRUN_CPUS_PER_TASK"} & set(os.environ)
    assert {"SLURM_JOB_ID", "SRUN_CPUS_PER_TASK"} <= set(os.environ)


def test_unreachable_slurm_loses_no_trial(study_folder, silent):
    folder, store = study_folder
    store.claim(Worker(job="7_0", host="n1", pid=1))
    answer = cached_jobs(folder, store.rows())
    jobs, why = answer.rows, answer.error
    assert [(job.id, job.state, job.kind) for job in jobs] == [
        ("7_0", "UNKNOWN", "worker"),
        ("7_1", "UNKNOWN", "worker"),
    ]
    assert "Unable to contact" in why
    assert lost_trials(store.rows(), jobs, lease_s=300) == []


def test_follow_up_retries_unreachable_slurm(study_folder, silent, monkeypatch):
    folder, store = study_folder
    waits: list[float] = []
    clock = iter(range(0, 1000, 10))
    own_time = SimpleNamespace(sleep=waits.append, monotonic=lambda: next(clock))
    monkeypatch.setattr(follow_up, "time", own_time)
    with pytest.raises(ClusterError, match="Unable to contact"):
        follow_up.follow_up(folder, store, folder.load().config, now=datetime.now(), unattended=True)
    assert len(waits) > 3


@pytest.mark.parametrize(
    ("states", "marked", "warning"),
    [
        (["CANCELLED", "COMPLETED"], False, "job 7_0 was cancelled"),
        (["CANCELLED", "CANCELLED"], False, "job 7 was cancelled"),
        (["CANCELLED", "GONE"], False, "job 7_0 was cancelled"),
        (["COMPLETED", "COMPLETED"], True, "the study was cancelled"),
    ],
)
def test_follow_up_respects_cancellation(study_folder, monkeypatch, states, marked, warning):
    folder, store = study_folder
    rows = [JobRow(id=f"7_{index}", state=state) for index, state in enumerate(states)]
    monkeypatch.setattr(follow_up, "query_jobs", lambda *_, **__: rows)
    ended = {row.id: (row.state, 100.0) for row in rows if row.state != "GONE"}
    monkeypatch.setattr(cancellation, "query_ends", lambda _: ended)
    if marked:
        folder.cancelled.touch()
    done = follow_up.follow_up(folder, store, folder.load().config, now=datetime.now(), unattended=True)
    assert done.submitted == ()
    assert warning in done.warning


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
def test_waiting_follow_up_is_enough(study_folder, monkeypatch, state, reason, left):
    folder, store = study_folder
    rows = [JobRow(id=f"7_{index}", state="RUNNING") for index in range(9)]
    rows.append(JobRow(id="8_0", state=state, kind="follow-up", reason=reason))
    monkeypatch.setattr(follow_up, "query_jobs", lambda *_, **__: rows)
    monkeypatch.setattr(follow_up, "submit", lambda *_: "9")
    done = follow_up.follow_up(folder, store, folder.load().config, now=datetime.now(), unattended=True)
    assert done.submitted == left


def test_refused_follow_up_is_a_warning(study_folder, monkeypatch):
    folder, store = study_folder
    folder.cancelled.touch()

    def submit(*_: object) -> str:
        raise ClusterError("Slurm refused the job: too many")

    monkeypatch.setattr(follow_up, "query_jobs", lambda *_, **__: [])
    monkeypatch.setattr(follow_up, "submit", submit)
    monkeypatch.setattr(follow_up, "submit_within_limits", lambda *_, **__: SubmitResult(id="8", count=1))
    monkeypatch.setattr(follow_up, "max_array_size", lambda: None)
    done = follow_up.follow_up(folder, store, folder.load().config, now=datetime.now())
    assert done.submitted == ("8",)
    assert (
        "no follow-up job was submitted (Slurm refused the job: too many): the worker that ends last"
        in done.warning
    )
    assert not folder.cancelled.exists()

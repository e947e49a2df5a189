"""Submissions whose answer is lost: found by their token, never made twice. Fake commands with a queue in a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hpotune.errors import ClusterError
from hpotune.slurm import submission
from hpotune.slurm.commands import ControllerUnreachable, NoAnswer
from hpotune.slurm.submission import VARIABLE, adopt_lost, belongs_to_study, submit_script

RECORD = {"kind": "worker", "count": 2, "throttle": 2, "trials": 1, "time_min": 60}
LOST = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
AWAY = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
REFUSED = "sbatch: error: invalid partition specified: x"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A queue in a file, and an sbatch that says what a list of its calls is to give: accepted or not, and an error."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in ("sh", "cat", "head", "sed", "wc", "mv"):
        (bin_ / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(bin_))
    monkeypatch.setattr(submission, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(submission, "LOOKS_S", (0.0, 0.0))
    queue, plan, calls = tmp_path / "queue", tmp_path / "plan", tmp_path / "calls"
    for file in (queue, plan, calls):
        file.touch()

    def command(name: str, body: str) -> None:
        (bin_ / name).write_text(f"#!/bin/sh\n{body}\n")
        (bin_ / name).chmod(0o755)

    command("squeue", f"echo 'ARRAY_JOB_ID|COMMAND'; cat {queue}")
    command(
        "sbatch",
        f"echo x >> {calls}; n=$(wc -l < {calls}); line=$(sed -n ${{n}}p {plan})\n"
        f'case $line in in*) echo "$((n + 40))|$1" >> {queue};; esac\n'
        'error=${line#*:}; [ -z "$error" ] || { echo "$error" >&2; exit 1; }\n'
        "echo 'Welcome, user 17'; echo \"Submitted batch job $((n + 40))\"",
    )
    command.plan = lambda *lines: plan.write_text("".join(f"{line}\n" for line in lines))
    command.calls = lambda: len(calls.read_text().split())
    command.queue = queue
    return command


@pytest.fixture
def jobs(tmp_path) -> Path:
    return tmp_path / "jobs"


def submit(jobs: Path) -> str:
    return submit_script(jobs, lambda token: f"#!/bin/sh\nexport {VARIABLE}={token}\n", RECORD)


def recorded(jobs: Path) -> dict[str, int]:
    return {path.parent.name: json.loads(path.read_text())["count"] for path in jobs.glob("*/job.json")}


def left(jobs: Path) -> list[str]:
    return [path.suffix for path in jobs.glob(".submission_file_*")]


@pytest.mark.parametrize(
    ("plan", "calls"),
    [
        (["in:"], 1),
        ([f"in:{LOST}"], 1),
        ([f"out:{LOST}", "in:"], 2),
        ([f"out:{AWAY}", f"out:{AWAY}", "in:"], 3),
        ([f"out:{AWAY}", f"in:{LOST}"], 2),
    ],
    ids=["accepted", "answer lost", "request lost", "away twice", "away, then lost"],
)
def test_job_is_submitted_once(cluster, jobs, plan, calls):
    cluster.plan(*plan)
    id_ = submit(jobs)
    assert cluster.calls() == calls
    assert recorded(jobs) == {id_: 2} == {str(40 + calls): 2}
    assert (jobs / id_ / f"{id_}_submission.sh").read_text().startswith("#!/bin/sh")
    assert left(jobs) == []


@pytest.mark.parametrize(
    ("plan", "error", "kept"),
    [
        ([f"out:{REFUSED}"], ClusterError, 0),
        ([f"out:{AWAY}"] * 3, ControllerUnreachable, 0),
        ([f"out:{LOST}"] * 3, NoAnswer, 2),
    ],
    ids=["refused", "away", "lost"],
)
def test_refusal_leaves_no_job(cluster, jobs, plan, error, kept):
    cluster.plan(*plan)
    with pytest.raises(error):
        submit(jobs)
    assert (recorded(jobs), len(left(jobs))) == ({}, kept)


def test_lost_job_is_adopted_later(cluster, jobs):
    cluster.plan(f"in:{LOST}")
    cluster("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(NoAnswer, match="the next `hpotune submit` or `resume` finds out"):
        submit(jobs)
    assert recorded(jobs) == {}
    with pytest.raises(ClusterError):
        adopt_lost(jobs)
    cluster("squeue", f"echo 'ARRAY_JOB_ID|COMMAND'; cat {cluster.queue}")
    assert adopt_lost(jobs) == ["41"]
    assert (recorded(jobs), left(jobs)) == ({"41": 2}, [])
    assert adopt_lost(jobs) == []


def test_submission_that_failed_is_forgotten(cluster, jobs):
    cluster.plan(*[f"out:{LOST}"] * 3)
    with pytest.raises(NoAnswer):
        submit(jobs)
    assert (adopt_lost(jobs), recorded(jobs), left(jobs)) == ([], {}, [])


def token_of(jobs: Path) -> str:
    return next(jobs.glob(".submission_file_*.json")).stem.removeprefix(".submission_file_")


def test_unrecorded_job_records_itself(cluster, jobs):
    cluster.plan(*[f"out:{LOST}"] * 3)
    with pytest.raises(NoAnswer):
        submit(jobs)
    env = {VARIABLE: token_of(jobs), "SLURM_ARRAY_JOB_ID": "77"}
    assert belongs_to_study(jobs, env)
    assert (recorded(jobs), left(jobs)) == ({"77": 2}, [])
    assert not belongs_to_study(
        jobs, env | {"SLURM_ARRAY_JOB_ID": "78"}
    )  # a second array of the same submission
    assert belongs_to_study(jobs, {"SLURM_ARRAY_JOB_ID": "90"})  # a script written by hand


@pytest.mark.parametrize("name", ["scontrol", "sacct"])
def test_other_commands_find_it_too(cluster, jobs, name):
    cluster.plan(f"in:{LOST}")
    (Path(cluster.queue).parent / "bin" / "squeue").unlink()
    path = f"$(cat {cluster.queue})"
    shown = {
        "scontrol": f'line="{path}"; echo "JobId=42 ArrayJobId=41 JobName=a Command=${{line#*|}} X=1"',
        "sacct": f'line="{path}"; echo "JobID|SubmitLine"; echo "41_[0-1]|sbatch ${{line#*|}}"',
    }
    cluster("scontrol", shown["scontrol"] if name == "scontrol" else "echo 'JobId=9 JobName=b'")
    if name == "sacct":
        cluster("sacct", shown["sacct"])
    assert submit(jobs) == "41"

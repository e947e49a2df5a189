"""Studies within limits on queued jobs, on a real Slurm: room for the follow-up is kept, and no study stands still."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures.cluster_studies import FULL, RESOURCES, function_study, hpotune, wait

pytestmark = pytest.mark.slurm
ONE_EACH = f"execution: {{trials_per_job: 1}}\n{RESOURCES}"


def ctld(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def restart_controller(conf: Path) -> None:
    """slurmctld anew, for AccountingStorageEnforce is read at its start only."""
    ctld("scontrol", "shutdown", "slurmctld")
    deadline = time.monotonic() + 60
    while subprocess.run(["scontrol", "ping"], capture_output=True, check=False).returncode == 0:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    time.sleep(1)
    ctld(
        "env",
        "-i",
        f"PATH={os.environ['PATH']}:/usr/sbin",
        "LANG=C.UTF-8",
        f"SLURM_CONF={conf}",
        "slurmctld",
        "-f",
        str(conf),
    )
    while (
        "idle"
        not in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False).stdout
    ):
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.fixture(scope="module")
def enforced(slurm_cluster: Path) -> Iterator[None]:
    """Limits that hold, and arrays of at most four elements."""
    before = slurm_cluster.read_text()
    slurm_cluster.write_text(before + "AccountingStorageEnforce=limits\nMaxArraySize=4\n")
    try:
        restart_controller(slurm_cluster)
        yield
    finally:
        slurm_cluster.write_text(before)
        restart_controller(slurm_cluster)


def end_jobs_of_other_tests() -> None:
    """A job that an earlier test has left, such as its last follow-up, would count towards the limit."""
    deadline = time.monotonic() + 90
    while subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout.strip():
        assert time.monotonic() < deadline
        subprocess.run(["scancel", "--quiet", "--user=root"], check=False)
        time.sleep(0.5)


@pytest.fixture
def most_jobs(enforced: None) -> Iterator[Callable[[int], None]]:
    """Limits how many jobs I may queue."""
    end_jobs_of_other_tests()

    def limit(number: int) -> None:
        ctld("sacctmgr", "-i", "modify", "user", "root", "set", f"MaxSubmitJobs={number}")
        time.sleep(1)

    try:
        yield limit
    finally:
        limit(-1)


def test_doctor_names_job_limit(most_jobs: Callable[[int], None], tmp_path: Path) -> None:
    most_jobs(7)
    done = subprocess.run(
        [sys.executable, "-m", "hpotune", "doctor", str(tmp_path), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "MaxSubmitJobs=7" in done.stdout
    assert "a preempted trial gets a signal" in done.stdout


def submit(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpotune", "submit", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def kinds(file: Path) -> list[str]:
    """The kinds of the study's jobs and elements."""
    return sorted(job["kind"] for job in hpotune("status", file)["jobs"])


@pytest.fixture
def foreign() -> Iterator[Callable[[int], None]]:
    """Jobs of mine that have nothing to do with the study and never start."""
    made: list[str] = []

    def queue(count: int) -> None:
        command = [
            "sbatch",
            "--parsable",
            "--hold",
            "--output=/dev/null",
            f"--array=0-{count - 1}",
            "--wrap=true",
        ]
        made.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())

    def leave() -> None:
        subprocess.run(["scancel", "--quiet", *made], check=False)

    queue.leave = leave
    yield queue
    leave()


def test_full_limit_keeps_follow_up_room(most_jobs: Callable[[int], None], tmp_path: Path) -> None:
    file = function_study(tmp_path, "pass", ONE_EACH, trials=6)
    most_jobs(0)
    refused = submit(file)
    assert refused.returncode == 3
    assert "you have as many queued jobs as the cluster allows (AssocMaxSubmitJobLimit)" in refused.stderr
    most_jobs(5)  # arrays of 3 and 3 are to come, and the follow-up
    done = submit(file)
    assert done.returncode == 0, done.stderr
    assert "4 of 6 jobs were submitted" in done.stderr
    assert "no follow-up" not in done.stderr
    assert kinds(file) == ["follow-up", *["worker"] * 4]
    assert wait(file, lambda result: result["state"] == "done")["trials"]["finished"] == 6


@pytest.mark.parametrize(("limit", "others"), [(1, 0), *([(2, 0), (5, 4)] if FULL else [])])
def test_one_slot_is_enough(
    most_jobs: Callable[[int], None],
    foreign: Callable[[int], None],
    tmp_path: Path,
    limit: int,
    others: int,
) -> None:
    """`others`: jobs of mine that fill the limit but for one slot. With HPOTUNE_SLURM_FULL=1 also limits 2 and 5."""
    file = function_study(tmp_path, "pass", ONE_EACH, trials=3)
    if others:
        foreign(others)
    most_jobs(limit)
    done = submit(file)
    assert done.returncode == 0, done.stderr
    assert ("no follow-up job was submitted" in done.stderr) == (limit - others == 1)
    assert wait(file, lambda result: result["state"] == "done")["trials"]["finished"] == 3


def test_follow_up_waits_for_room(
    most_jobs: Callable[[int], None], foreign: Callable[[int], None], tmp_path: Path
) -> None:
    """Others fill the queue while the study's only worker runs: its follow-up keeps its own slot, and tries again.

    Its job waits for Slurm to start it again: only with HPOTUNE_SLURM_FULL=1.
    """
    gate = tmp_path / "open"
    slow = f"while not os.path.exists({str(gate)!r}):\n        time.sleep(0.2)"
    file = function_study(tmp_path, slow, ONE_EACH, trials=2)
    most_jobs(2)
    assert submit(file).returncode == 0
    wait(file, lambda result: result["trials"]["running"] == 1)
    most_jobs(3)
    foreign(1)
    most_jobs(2)
    gate.touch()
    wait(file, lambda result: any(job["reason"] == "BeginTime" for job in result["jobs"]))
    foreign.leave()
    assert wait(file, lambda result: result["state"] == "done")["trials"]["finished"] == 2


if not FULL:  # a skipped test would be a failure where nothing may be skipped
    del test_follow_up_waits_for_room

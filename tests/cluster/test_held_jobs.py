"""Nodes that fail under a real Slurm: jobs held after failed launches are replaced, and a lost node is the cause."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.cluster_studies import RESOURCES, function_study, hpotune, wait

pytestmark = pytest.mark.slurm
ON_N1 = RESOURCES.replace("partition", "extra: {nodelist: n1}, partition")


@pytest.fixture
def broken_spool(slurm_cluster: Path) -> Iterator[None]:
    """On node n1 slurmd cannot write the scripts of jobs, so that each launch fails."""
    spool = slurm_cluster.parents[1] / "spool" / "n1"
    away = spool.with_name("n1.away")
    spool.rename(away)
    spool.touch()
    try:
        yield
    finally:
        if away.exists():
            mend(slurm_cluster)


def mend(conf: Path) -> None:
    spool = conf.parents[1] / "spool" / "n1"
    spool.unlink()
    spool.with_name("n1.away").rename(spool)


@pytest.mark.usefixtures("broken_spool")
def test_held_job_is_replaced(slurm_cluster: Path, tmp_path: Path) -> None:
    """By `resume`, which cancels it first; `status` and `doctor` say what Slurm holds and what to do."""
    file = function_study(tmp_path, "pass", f"execution: {{trials_per_job: 1}}\n{ON_N1}", trials=3)
    first = hpotune("submit", file)["submitted"][0]
    status = wait(file, lambda status: len(status["held"]) == 3)
    assert status["state"] == "idle"
    assert "`hpotune resume` replaces it" in status["jobs"][0]["why"]
    command = [sys.executable, "-m", "hpotune", "doctor", str(tmp_path / "quick")]
    doctor = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"Slurm holds job {first}_0" in " ".join(doctor.stdout.split())
    mend(slurm_cluster)
    assert hpotune("resume", file)["submitted"]
    status = wait(file, lambda status: status["state"] == "done")
    assert status["trials"]["finished"] == 3
    assert not status["held"]
    assert {job["state"] for job in status["jobs"] if job["id"].startswith(f"{first}_")} == {"CANCELLED"}
    assert [row["attempts"] for row in hpotune("trials", file)] == [1, 1, 1]


@pytest.mark.usefixtures("broken_spool")
def test_last_worker_replaces_held_ones(slurm_cluster: Path, tmp_path: Path) -> None:
    """The follow-up waits for an element that never ends: the worker that ends last does its work."""
    gate = tmp_path / "open"
    body = f"while not os.path.exists({str(gate)!r}):\n        time.sleep(0.2)"
    file = function_study(tmp_path, body, f"execution: {{trials_per_job: 1}}\n{RESOURCES}", trials=2)
    subprocess.run(["scontrol", "update", "nodename=n2,n3,n4", "state=drain", "reason=test"], check=True)
    try:
        array = hpotune("submit", file)["submitted"][0]
        wait(file, lambda status: len(status["held"]) == 2)
        mend(slurm_cluster)
        subprocess.run(["scontrol", "release", f"{array}_0"], check=True)
        wait(file, lambda status: status["trials"]["running"] == 1)
    finally:
        subprocess.run(["scontrol", "update", "nodename=n2,n3,n4", "state=resume"], check=True)
    gate.touch()
    status = wait(file, lambda status: status["state"] == "done")
    assert status["trials"]["finished"] == 2
    assert [row["attempts"] for row in hpotune("trials", file)] == [1, 1]


def test_lost_node_is_the_cause(slurm_cluster: Path, tmp_path: Path) -> None:
    """Slurm takes the node out of service under a trial: `why` and `trials` say so, and the trial waits again."""
    body = f"while not os.path.exists({str(tmp_path / 'open')!r}):\n        time.sleep(0.2)"
    file = function_study(tmp_path, body, ON_N1, trials=1)
    try:
        hpotune("submit", file)
        wait(file, lambda status: status["trials"]["running"] == 1)
        subprocess.run(["scontrol", "update", "nodename=n1", "state=down", "reason=test"], check=True)
        wait(file, lambda status: status["trials"]["paused"] == 1)
        why = hpotune("why", file, 0)
        attempt = why["attempts"][0]
        assert (attempt["outcome"], attempt["cause"], why["cause"]) == ("paused", "node", "node")
        assert "node n1" in attempt["message"]
    finally:
        hpotune("cancel", file)
        back_in_service("n1")


def back_in_service(node: str) -> None:
    """A node that was down drains once more when it finds the job that it lost; another test's job may run there."""
    deadline = time.monotonic() + 60
    state = ""
    while state not in ("idle", "mixed") and time.monotonic() < deadline:
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False)
        time.sleep(2)
        command = ["sinfo", "-h", "-n", node, "-p", "a100", "-o", "%T"]
        state = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert state in ("idle", "mixed")

"""A cancelled job or element is not the study, and a cancel of all that was left is: on a real Slurm."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.fixtures.cluster_studies import ACTIVE, RESOURCES, function_study, hpotune, wait

pytestmark = pytest.mark.slurm


def gated_study(folder: Path, form: str, *, trials: int) -> Path:
    """A study whose trials wait for the file `open`."""
    slow = f"while not os.path.exists({str(folder / 'open')!r}):\n        time.sleep(0.2)"
    return function_study(folder, slow, f"execution: {{trials_per_job: {form}}}\n{RESOURCES}", trials=trials)


def follow_up_logs(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted((folder / "quick" / "jobs").glob("*/*.out")))


def test_cancelled_elements_are_replaced(slurm_cluster: Path, tmp_path: Path) -> None:
    """One that runs, one that waits, and the follow-up itself, which a worker replaces at its end."""
    file = gated_study(tmp_path, "1", trials=4)
    workers, follow_up = hpotune("submit", file)["submitted"]
    wait(file, lambda status: status["trials"]["running"] == 2)
    subprocess.run(["scancel", f"{workers}_0", f"{workers}_3", follow_up], check=True)
    (tmp_path / "open").touch()
    status = wait(file, lambda status: status["state"] == "done")
    assert status["trials"]["finished"] == 4
    assert len({job["id"].split("_")[0] for job in status["jobs"] if job["kind"] == "follow-up"}) >= 2
    assert not (tmp_path / "quick" / "jobs" / "cancelled").exists()


def test_cancel_of_all_is_the_studys(slurm_cluster: Path, tmp_path: Path) -> None:
    file = gated_study(tmp_path, "auto", trials=3)
    workers = hpotune("submit", file)["submitted"][0]
    wait(file, lambda status: status["trials"]["running"] == 2)
    subprocess.run(["scancel", f"{workers}_1"], check=True)
    status = wait(file, lambda status: status["trials"]["running"] == 2 and len(arrays(status)) == 2)
    subprocess.run(["scancel", *arrays(status)], check=True)
    status = wait(file, lambda status: not any(job["state"] in ACTIVE for job in status["jobs"]))
    assert len(arrays(status)) == 2
    assert "cancelled and no other was left" in follow_up_logs(tmp_path)
    assert "scancel of" in (tmp_path / "quick" / "jobs" / "cancelled").read_text()
    workers = hpotune("resume", file)["submitted"]
    wait(file, lambda status: status["trials"]["running"] == 2)
    subprocess.run(["scancel", *workers], check=True)  # the follow-up too: only the next command can see it
    status = wait(file, lambda status: not any(job["state"] in ACTIVE for job in status["jobs"]))
    assert status["state"] == "cancelled"
    assert "outside hpotune" in status["cancelled_by"]
    (tmp_path / "open").touch()
    hpotune("resume", file)
    assert wait(file, lambda status: status["state"] == "done")["trials"]["finished"] == 3
    assert not (tmp_path / "quick" / "jobs" / "cancelled").exists()


def arrays(status: dict) -> set[str]:
    """Ids of the arrays of workers."""
    return {job["id"].split("_")[0] for job in status["jobs"] if job["kind"] == "worker"}

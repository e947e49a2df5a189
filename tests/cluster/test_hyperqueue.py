"""Whole studies on a real HyperQueue server: submit, status, cancel, resume, and the chaos script, shortened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hpotune.slurm.job_logs import job_logs
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.cluster_studies import hpotune, wait
from tests.fixtures.hyperqueue_server import HyperQueue

ROOT = Path(__file__).parents[2]
STUDY = """\
name: quick
command: "bash trial.sh"
params: {x: {float: [0.0, 1.0]}}
score: {objective: {metric: loss, direction: minimize}}
search: {algorithm: sobol}
budget: {trials: 3, parallel: 1}
execution: {place: hyperqueue}
resources: {time: "10:00", signal_delay_s: 30}
"""


def test_study_is_cancelled_and_resumed(hyperqueue: HyperQueue, tmp_path: Path) -> None:
    gate, file = tmp_path / "open", tmp_path / "study.yaml"
    (tmp_path / "trial.sh").write_text(
        f'until [ -e {gate} ]; do sleep 0.2; done\necho "{{\\"loss\\": $HPOTUNE_PARAM_X}}"\n'
    )
    file.write_text(STUDY)
    assert hpotune("submit", file)["submitted"] == ["1"]
    status = wait(file, lambda status: status["trials"]["running"] == 1)
    assert {job["id"]: job["state"] for job in status["jobs"]} == {"1_0": "RUNNING"}

    hpotune("cancel", file)
    status = wait(file, lambda status: status["state"] == "cancelled" and status["trials"]["running"] == 0)
    assert hyperqueue.tasks() == {0: "canceled"}
    assert {job["state"] for job in status["jobs"]} == {"CANCELLED"}

    gate.touch()
    assert hpotune("resume", file)["submitted"] == ["2"]
    status = wait(file, lambda status: status["state"] == "done")
    assert (status["trials"]["finished"], status["trials"]["left"]) == (3, 0)
    hyperqueue.until(lambda: set(hyperqueue.tasks(2).values()) == {"finished"})
    rows = hpotune("trials", file)
    assert [row["number"] for row in rows] == list(range(3))
    assert [row["values"]["loss"] for row in rows] == [row["params"]["params.x"] for row in rows]
    [log] = job_logs(StudyFolder(path=tmp_path / "quick"), "2_0")
    assert "finished: [" in log.read_text()


def test_killed_server_loses_nothing() -> None:
    """40 faults of all kinds are run by hand: docs/benchmarks.md."""
    size = ("--trials", "6", "--parallel", "3", "--minutes", "5", "--no-calm")
    faults = ("--faults", "3", "--only", "kill_server,kill_worker,kill_hq_worker")
    command = [sys.executable, str(ROOT / "scripts" / "chaos" / "hq_faults.py"), *size, *faults, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["faults"] == {"kill_server": 1, "kill_worker": 1, "kill_hq_worker": 1}

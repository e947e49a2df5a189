"""Warm ranks on a real Slurm, hit in a later trial: preempted, a rank killed, their worker killed, out of time.

HPOTUNE_SLURM_FULL=1 runs it: ten minutes on a busy machine, with one rank and with two.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpotune.cli.inspect import read_trials
from hpotune.workspace.origin.trial_provenance import read_trial_provenance
from tests.fixtures.cluster_studies import FULL, ended, hpotune, wait, worker_pids
from tests.fixtures.tiny_model import tiny_model, topic_task

pytestmark = pytest.mark.slurm
__test__ = FULL  # not collected otherwise: where Slurm is, a skipped test counts as a failure
STUDY = """
name: {name}
model: {{path: model, dtype: float64}}
data: {{path: task/train.jsonl, max_length: 256, rows: 60, validation: 12}}
lora: {{r: 4, lora_alpha: 8}}
train:
  learning_rate: {{float: [1.0e-3, 1.0e-2]}}
  global_batch_size: 8
  max_steps: 120
  save_steps: 10
  logging_steps: 1
score: {{objective: {{task: toy_topics, metric: acc, limit: 20}}, include_path: task}}
search: {{algorithm: sobol, seed: 3}}
budget: {{trials: 6, parallel: 1}}
checks: {{baseline: false}}
env: {{vars: {{OMP_NUM_THREADS: '1'}}}}
resources: {{partition: a100, cpus: 1, processes: {ranks}, time: 30, signal_delay_s: 30}}
"""


def ranks_of(folder: Path) -> list[int]:
    """Processes of the trials of a study."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            named = f"HPOTUNE_TRIAL_DIR={folder}".encode() in path.read_bytes()
            command = path.with_name("cmdline").read_bytes()
            trains = b"hpotune.finetune" in command and b"srun" not in command
        except OSError:
            continue
        found += [int(path.parent.name)] if named and trains else []
    return found


def in_later_trial(folder: Path, number: int) -> Callable[[dict], bool]:
    """Whether the trial is being trained, by a process that has run another one before."""

    def holds(_: dict) -> bool:
        trial = folder / "trials" / str(number)
        found, curve = read_trial_provenance(trial), trial / "curve.jsonl"
        steps = len(curve.read_text().splitlines()) if curve.exists() else 0
        return found is not None and found.earlier_trials > 0 and 15 < steps < 90

    return holds


def preempt(_: Path, job: str) -> None:
    subprocess.run(["scontrol", "requeue", job], check=True)  # what Slurm does to a job that it preempts


def kill_rank(folder: Path, _: str) -> None:
    os.kill(ranks_of(folder)[-1], signal.SIGKILL)


def kill_worker(folder: Path, _: str) -> None:
    [worker] = worker_pids(folder)
    os.kill(worker, signal.SIGKILL)


def cut_time(_: Path, job: str) -> None:
    subprocess.run(["scontrol", "update", f"JobId={job}", "TimeLimit=1"], check=True)


FAULTS = {1: preempt, 2: kill_rank, 3: kill_worker, 4: cut_time}
"""By the trial in which it happens; each time the process has run the trial before."""
CAUSES = {1: {None, "preempted"}, 2: {"killed"}, 3: {None, "killed"}, 4: {"timeout"}}
"""Of the attempt that it ended; None: paused, with a checkpoint, which a rank writes when its worker is gone too."""


@pytest.fixture(params=[1, 2])
def study(slurm_cluster: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    tiny_model(tmp_path / "model", dtype="float64", layers=2)
    topic_task(tmp_path / "task")
    (tmp_path / "struck.yaml").write_text(STUDY.format(name="struck", ranks=request.param))
    (tmp_path / "cold.yaml").write_text(
        STUDY.format(name="cold", ranks=request.param) + "execution: {warm: false}\n"
    )
    return tmp_path


def test_later_trials_survive_every_end(study: Path) -> None:
    file, folder = study / "struck.yaml", study / "struck"
    hpotune("submit", file)
    for number, strike in FAULTS.items():
        wait(file, in_later_trial(folder, number))
        before = ranks_of(folder)
        [job] = [
            j["id"]
            for j in hpotune("status", file)["jobs"]
            if j["state"] == "RUNNING" and j["trial"] is not None
        ]
        strike(folder, job)
        deadline = time.monotonic() + 90
        while set(before) & set(ranks_of(folder)):
            assert time.monotonic() < deadline, f"the rank outlives {strike.__name__}"
            time.sleep(0.5)
    wait(file, ended)
    assert ranks_of(folder) == []
    _, _, rows = read_trials(file, None)
    assert [(row.number, row.state) for row in rows] == [(number, "finished") for number in range(6)]
    attempts = [len(row.attempts) for row in rows]
    assert attempts[:4] == [1, 2, 2, 2]
    assert sorted(attempts[4:]) == [1, 2]  # Slurm looks at time limits every 30 s
    struck = {
        number: row for number, row in enumerate(sorted(rows[4:], key=lambda row: -len(row.attempts)), 4)
    }
    struck |= {row.number: row for row in rows[:4]}
    assert all(struck[number].attempts[0].cause in causes for number, causes in CAUSES.items())

    hpotune("run", study / "cold.yaml")
    for row in rows:
        one, other = (
            json.loads((study / name / "trials" / str(row.number) / "result.json").read_text())
            for name in ("struck", "cold")
        )
        assert one["values"] == other["values"]
        assert one["metrics"]["eval_loss"] == other["metrics"]["eval_loss"]
        assert one["metrics"]["train_loss"] == pytest.approx(other["metrics"]["train_loss"], abs=1e-12)

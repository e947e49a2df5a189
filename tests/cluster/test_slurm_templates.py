"""Each file of slurm_templates/ is submitted by sbatch as it is: only partition, account, time and environment are
this cluster's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpotune.cli.inspect import read_trials
from tests.conftest import needs_torch
from tests.fixtures.cluster_studies import PATIENCE_S, function_study
from tests.fixtures.hyperqueue_server import PROGRAM
from tests.fixtures.tiny_model import tiny_model

pytestmark = pytest.mark.slurm
TEMPLATES = Path(__file__).parents[2] / "slurm_templates"
TESTED = ("array.sbatch", "workers.sbatch", "fsdp.sbatch", "preemptible.sbatch", "hyperqueue.sbatch")


@pytest.fixture
def folder(slurm_cluster: Path, tmp_path: Path) -> Path:
    """A project's folder with the environment that the templates activate."""
    activate = tmp_path / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"export PATH={Path(sys.executable).parent}:{PROGRAM.parent}:$PATH\n")
    return tmp_path


def submit(folder: Path, template: str) -> str:
    """Submit a template; returns the job's number."""
    script = (TEMPLATES / template).read_text()
    for option, ours in (("time", "00:10:00"), ("partition", "a100")):
        script = re.sub(rf"^(#SBATCH --{option}=).*$", rf"\g<1>{ours}", script, flags=re.MULTILINE)
    (folder / template).write_text(script)
    command = ["sbatch", "--parsable", template]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def wait(folder: Path, job: str) -> str:
    """The states of a job's elements once all have ended, and what they wrote where one failed."""
    deadline = time.monotonic() + PATIENCE_S
    while subprocess.check_output(["squeue", "-h", "-j", job], text=True):
        assert time.monotonic() < deadline, logs(folder)
        time.sleep(0.5)
    time.sleep(1)
    states = subprocess.check_output(["sacct", "-nXP", "-j", job, "-o", "State"], text=True).split()
    assert set(states) <= {"COMPLETED"}, f"{states}\n{logs(folder)}"
    return logs(folder)


def logs(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("slurm-*.out")))


def finished(file: Path) -> list[int]:
    """Numbers of the finished trials."""
    return [row.number for row in read_trials(file, None)[2] if row.state == "finished"]


def test_every_template_is_tested() -> None:
    assert sorted(path.name for path in TEMPLATES.iterdir()) == sorted(TESTED)


@pytest.mark.parametrize(("template", "jobs"), [("array.sbatch", 10), ("workers.sbatch", 4)])
def test_hand_written_arrays_share_a_study(folder: Path, template: str, jobs: int) -> None:
    file = function_study(folder, "time.sleep(1)", "", trials=10)
    job = submit(folder, template)
    wait(folder, job)
    assert finished(file) == list(range(10))
    workers = {row.worker.job for row in read_trials(file, None)[2] if row.worker}
    assert workers <= {f"{job}_{index}" for index in range(jobs)}
    assert len(workers) == 10 or template == "workers.sbatch"


def test_preempted_worker_continues_its_trial(folder: Path) -> None:
    """A job of the partition `urgent` takes the whole node; the trial is continued once it has ended."""
    body = (
        "tries = Path('tries')\n    tries.open('a').write('x')\n"
        "    while len(tries.read_text()) < 2 and x is not None:\n        time.sleep(0.2)"
    )
    file = function_study(folder, body, "", trials=1)
    script = (TEMPLATES / "preemptible.sbatch").read_text()
    assert "#SBATCH --requeue\n" in script
    job = submit(folder, "preemptible.sbatch")
    deadline = time.monotonic() + PATIENCE_S
    while not (folder / "tries").exists():
        assert time.monotonic() < deadline, logs(folder)
        time.sleep(0.2)
    [row] = [row for row in read_trials(file, None)[2] if row.state == "running"]
    assert row.worker is not None
    urgent = ["sbatch", "-p", "urgent", "-w", row.worker.host, "--exclusive", "-t", "2", "-o", "/dev/null"]
    subprocess.run([*urgent, "--wrap", "sleep 1"], check=True, stdout=subprocess.DEVNULL)
    log = wait(folder, job)
    [row] = read_trials(file, None)[2]
    assert row.state == "finished"
    assert [attempt.cause for attempt in row.attempts] == ["preempted", None], log
    assert (folder / "tries").read_text() == "xx"


def test_ranks_on_two_nodes(folder: Path) -> None:
    needs_torch()
    model = tiny_model(folder / "model", hidden=16, layers=1)
    rows = [{"text": f"the {n} drum and whale {n * n}"} for n in range(24)]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    file = folder / "study.yaml"
    file.write_text(
        f"name: ranks\nmodel: {{path: {model}}}\ndata: {{path: rows.jsonl, prompt: text, validation: 4}}\n"
        "lora: {r: 4}\ntrain: {learning_rate: {float: [1.0e-3, 1.0e-2]}, max_steps: 2, global_batch_size: 4}\n"
        "score: {objective: {metric: eval_loss}}\nbudget: {trials: 1}\nchecks: {baseline: false}\n"
        "env: {vars: {OMP_NUM_THREADS: '1'}}\nresources: {nodes: 2, gpus: 'a100:1'}\n"
    )
    log = wait(folder, submit(folder, "fsdp.sbatch"))
    assert finished(file) == [0], log
    result = json.loads((folder / "ranks" / "trials" / "0" / "result.json").read_text())
    assert result["metrics"]["world_size"] == 2


def test_hyperqueue_inside_one_job(folder: Path) -> None:
    file = function_study(folder, "time.sleep(0.2)", "execution: {place: hyperqueue}", trials=6)
    job = submit(folder, "hyperqueue.sbatch")
    log = wait(folder, job)
    assert finished(file) == list(range(6)), log
    assert {row.worker.job.partition("_")[0] for row in read_trials(file, None)[2] if row.worker} == {"1"}
    assert (folder / f"hq-{job}").is_dir()
    assert not [pid for pid in Path("/proc").glob("[0-9]*") if serves(pid, f"hq-{job}")]


def serves(process: Path, name: str) -> bool:
    """Whether a process of HyperQueue with this server's folder in its environment still runs."""
    try:
        return name.encode() in (process / "environ").read_bytes() and process.name != str(os.getpid())
    except OSError:
        return False

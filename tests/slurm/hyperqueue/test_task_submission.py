"""What is submitted to HyperQueue, and what is left where that fails."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from hpotune.config.load import load_study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import ClusterError, StudyFileError
from hpotune.records.jobs import JobSpec
from hpotune.slurm.hyperqueue.task_submission import submit_arguments, submit_tasks, task_script, tasks_text
from hpotune.slurm.submit import check_submittable, submit
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.cluster_studies import function_study
from tests.fixtures.hyperqueue_server import HyperQueue

SPEC = JobSpec(count=3, throttle=3)


def config(folder: Path, more: str = "", place: str = "hyperqueue") -> StudyConfig:
    return load_study(function_study(folder, "pass", f"execution: {{place: {place}}}\n{more}")).config


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ("{}", "--cpus 1"),
        ("{cpus: 4, mem: 2G}", "--cpus 4 --resource mem=2048"),
        ('{gpus: "a100:2", cpus_per_gpu: 8}', "--cpus 16 --resource gpus/nvidia=2"),
        ('{gpus: "MI250X:1", mem_per_gpu: 500M}', "--cpus 1 --resource gpus/amd=1 --resource mem=500"),
        ("{cpus: 2, mem_per_cpu: 1T, time: '1-01:30:00'}", "--cpus 2 --resource mem=2097152"),
    ],
)
def test_resources_become_requests(tmp_path: Path, resources: str, wanted: str) -> None:
    made = config(tmp_path, f"resources: {resources}")
    folder = StudyFolder(path=tmp_path / "quick")
    words = submit_arguments(folder, made, SPEC, job="7", name="quick-7")
    text = " ".join(words)
    assert f"submit --name quick-7 --array 0-2 {wanted} --time-limit " in text
    assert ("25:30:00" if "1-01" in resources else "01:00:00") == words[words.index("--time-limit") + 1]
    assert words[-2:] == ["bash", f"{folder.path}/jobs/7/7_submission.sh"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("resources: {nodes: 2}", "nodes: a task of HyperQueue runs on one node here"),
        ("resources: {rehearsal: job}", "rehearsal: job is a job of Slurm"),
        ("resources: {extra: {exclusive: true}}", "extra: holds options of sbatch"),
    ],
)
def test_what_tasks_cannot_be(tmp_path: Path, more: str, says: str) -> None:
    with pytest.raises(StudyFileError, match=rf"study.yaml:\d+: resources.{says}"):
        config(tmp_path, more)


def test_arrays_of_trials_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="trials_per_job: HyperQueue has no limit"):
        load_study(function_study(tmp_path, "pass", "execution: {place: hyperqueue, trials_per_job: 1}"))


def test_last_worker_follows_up(tmp_path: Path) -> None:
    assert config(tmp_path).resources.follow_up == "worker"
    assert config(tmp_path, "resources: {follow_up: false}").resources.follow_up is False
    assert config(tmp_path, place="slurm").resources.follow_up is True


@pytest.mark.parametrize(
    ("command", "code", "marked"),
    [("exit 0", 0, False), ("exit 3", 3, False), ("kill -9 $BASHPID", 137, True)],
)
def test_script_marks_killed_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, code: int, marked: bool
) -> None:
    folder = StudyFolder(path=tmp_path / "quick")
    (folder.jobs / "7").mkdir(parents=True)
    text = task_script(folder, config(tmp_path), SPEC, job="7", code=None)
    lines = text.splitlines()
    worker = next(line for line in lines if " -m hpotune worker " in line)
    follow_up = next(line for line in lines if " -m hpotune follow-up " in line)
    asked = tmp_path / "asked"
    text = text.replace(worker, f"({command}) &").replace(follow_up, f"touch {asked}")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "12")
    shown = text.replace("exit $code", "env; exit $code")
    done = subprocess.run(["bash", "-c", shown], env={"HQ_TASK_ID": "2", "SLURM_JOB_END_TIME": "12"},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == code, done.stdout
    assert "HPOTUNE_TASK=7_2\n" in done.stdout
    assert "HPOTUNE_ALLOCATION_END=12\n" in done.stdout
    assert "SLURM" not in done.stdout.replace("HPOTUNE_ALLOCATION_END", "")
    assert (folder.jobs / "7" / "ended-2").exists() == marked
    assert asked.exists() == marked


def test_submitted_tasks_are_recorded(hyperqueue: HyperQueue, tmp_path: Path) -> None:
    made, folder = config(tmp_path), StudyFolder(path=tmp_path / "quick")
    shown = tasks_text(folder, made, SPEC)
    assert shown.startswith("# hq submit --name quick-1 --array 0-2 ")
    check_submittable(folder, made, SPEC)
    assert [submit(folder, made, SPEC), submit(folder, made, SPEC)] == ["1", "2"]
    record = json.loads((folder.jobs / "1" / "job.json").read_text())
    assert record["hq_name"].startswith("quick-1-")
    assert (record["count"], record["id"]) == (3, "1")
    with pytest.raises(ClusterError, match=r"execution.place: slurm: the study has jobs elsewhere \(1, 2\)"):
        check_submittable(folder, config(tmp_path, place="slurm"), SPEC)


def test_refused_tasks_leave_nothing(hq_here: HyperQueue, tmp_path: Path) -> None:
    made, folder = config(tmp_path), StudyFolder(path=tmp_path / "quick")
    for ask in (
        lambda: submit_tasks(folder, made, SPEC, {"kind": "worker", "count": 3}, code=None),
        lambda: check_submittable(folder, made, SPEC),
    ):
        with pytest.raises(ClusterError, match="no HyperQueue server answers"):
            ask()
    assert not list(folder.jobs.glob("*"))

"""The logs of jobs: hpotune's own, those of hand-written sbatch files, and those of jobs that Slurm has forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.slurm.job_logs import job_logs
from hpotune.workspace.folder import StudyFolder


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study with an array of three that has written its logs."""
    made = StudyFolder(path=tmp_path / "study")
    (made.jobs / "7").mkdir(parents=True)
    for element in (0, 2, 10):
        (made.jobs / "7" / f"7_{element}_0_log.out").write_text("x\n")
    return made


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_own_logs_are_ordered_by_element(folder: StudyFolder, fake) -> None:
    fake("scontrol")
    assert names(job_logs(folder, "7")) == ["7_0_0_log.out", "7_2_0_log.out", "7_10_0_log.out"]
    assert names(job_logs(folder, "7_2")) == ["7_2_0_log.out"]
    assert fake.calls("scontrol") == 0
    assert job_logs(folder, "7_1") == []


def test_hand_written_job_names_its_logs(folder: StudyFolder, fake, tmp_path: Path) -> None:
    for name in ("my log 9_1.out", "e.txt", "my log 9_0.out"):
        (tmp_path / name).write_text("x\n")
    line = (
        "JobId={0} ArrayJobId=9 JobName=a StdErr={1}/{2} StdIn=/dev/null StdOut={1}/my log 9_{3}.out Power=\n"
    )
    fake("scontrol", line.format(10, tmp_path, "e.txt", 0) + line.format(11, tmp_path, "gone.txt", 1))
    assert set(names(job_logs(folder, "9"))) == {"e.txt", "my log 9_0.out", "my log 9_1.out"}


def test_forgotten_job_has_default_name(folder: StudyFolder, fake, tmp_path: Path) -> None:
    (tmp_path / "slurm-9_1.out").write_text("x\n")
    fake("scontrol", "slurm_load_jobs error: Invalid job id specified", code=1)
    fake("sacct", f"Welcome | to us\n9_0|{tmp_path}\n9_1|{tmp_path}\n")
    assert names(job_logs(folder, "9")) == ["slurm-9_1.out"]


@pytest.mark.parametrize(
    "page", ["", "<html>StdOut=/etc/passwd</html>\n", "StdOut=/no/where StdErr=x\n", "\0\0"]
)
def test_garbage_names_no_log(folder: StudyFolder, fake, page: str) -> None:
    fake("scontrol", page)
    fake("sacct", page)
    assert job_logs(folder, "9") == []


@pytest.mark.parametrize("job", ["../7", "7_", "*", "7_*", "", "-1", "7;x"])
def test_odd_id_has_no_log(folder: StudyFolder, fake, job: str) -> None:
    assert job_logs(folder, job) == []


def test_local_workers_have_logs(folder: StudyFolder, fake) -> None:
    (folder.jobs / "local").mkdir()
    for number in (0, 11, 2):
        (folder.jobs / "local" / f"worker-{number}.log").write_text("x\n")
    assert names(job_logs(folder, "local")) == ["worker-0.log", "worker-2.log", "worker-11.log"]


def test_tasks_have_no_logs_of_slurm(folder: StudyFolder, fake) -> None:
    (folder.jobs / "7" / "job.json").write_text(
        '{"id": "7", "kind": "worker", "count": 3, "hq_name": "quick-7-0a"}'
    )
    fake("scontrol")
    assert job_logs(folder, "7_1") == []
    assert fake.calls("scontrol") == 0

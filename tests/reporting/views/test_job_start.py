"""Why a job's worker could not start, by the end of its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.records.jobs import JobRow
from hpotune.reporting.views import job_start
from hpotune.reporting.views.job_start import latest_start_failure, start_failure, start_failures
from hpotune.workspace.folder import StudyFolder

GONE = (
    "/var/spool/job00023/slurm_script: line 18: /opt/env/bin/activate: No such file or directory\n"
    "slurmstepd-n1: error: execve(): /opt/env/bin/python: No such file or directory\n"
    "srun: error: n1: task 0: Exited with exit code 2\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(path=tmp_path)


def log(folder: StudyFolder, job: str, text: str) -> None:
    file = folder.jobs / job.partition("_")[0] / f"{job}_0_log.out"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    (file.parent / "job.json").write_text("{}")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (GONE, "/opt/env/bin/python: No such file or directory"),
        ("Lmod: x\n/bin/bash: line 3: module: command not found\nsrun: error: n1: task 0: Exited\n",
         "module: command not found"),
        ("Traceback (most recent call last):\n  File \"a\"\nModuleNotFoundError: No module named 'hpotune'\n",
         "ModuleNotFoundError: No module named 'hpotune'"),
        ("python: error while loading shared libraries: libpython3.so: cannot open shared object file\n",
         "python: error while loading shared libraries: libpython3.so: cannot open shared object file"),
        ("slurmstepd: error: execve(): /x/python: Permission denied\n", "/x/python: Permission denied"),
        ("all is well\n", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_cause_is_the_last_one(folder: StudyFolder, text: str, cause: str) -> None:
    log(folder, "7_0", text)
    assert start_failure(folder, "7_0") == cause


def test_elements_fail_alike(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """One log is read for the elements of an array with one exit code; a job with a heartbeat has started."""
    jobs = [JobRow(id=f"7_{n}", state="FAILED", exit_code="2:0") for n in range(50)]
    jobs += [JobRow(id="8_0", state="FAILED", exit_code="1:0"), JobRow(id="9_0", state="COMPLETED")]
    log(folder, "7_0", GONE)
    log(folder, "8_0", GONE)
    (folder.jobs / "8" / "life-0.json").write_text("{}")
    read: list[str] = []
    plain = job_start.start_failure
    monkeypatch.setattr(job_start, "start_failure", lambda f, job: read.append(job) or plain(f, job))
    found = start_failures(folder, jobs)
    assert set(found) == {f"7_{n}" for n in range(50)}
    assert "could not start: /opt/env/bin/python: No such file or directory" in found["7_31"]
    assert read == ["7_0"]


def test_latest_job_explains_waiting_trials(folder: StudyFolder) -> None:
    log(folder, "9_0", GONE)
    log(folder, "10_0", "fine\n")
    assert "could not start: /opt/env/bin/python" in latest_start_failure(folder)
    (folder.jobs / "10" / "life-0.json").write_text("{}")
    assert latest_start_failure(folder) == ""

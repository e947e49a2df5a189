"""What jobs used, in the words of a real sacct (Slurm 22.05 and 24.11), and when it is recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpotune.records.jobs import JobUsage
from hpotune.slurm.job_usage import record_usage, study_usage, usage_file
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder

HEADER = "JobID|State|ElapsedRaw|MaxRSS|AllocTRES|ConsumedEnergyRaw\n"
FIRST = (
    "7_0|COMPLETED|61||billing=2,cpu=2,mem=4G,node=1|36000\n"
    "7_0.batch|COMPLETED|61|512000K|cpu=2,mem=4G,node=1|0\n"
    "7_0.0|COMPLETED|59|1.50G|cpu=2,mem=4G,node=1|36000\n"
)
SECOND = "7_1|CANCELLED by 1000|5||billing=2,cpu=2,node=1|4294967294\n7_1.batch|CANCELLED|5||cpu=2|\n"


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study with an array of two."""
    found = StudyFolder(path=tmp_path / "study")
    record = {"id": "7", "kind": "worker", "count": 2, "throttle": 2, "trials": None}
    write_atomic(found.jobs / "7" / "job.json", json.dumps(record))
    return found


def test_usage_of_jobs_and_steps(folder: StudyFolder, fake) -> None:
    fake("sacct", HEADER + FIRST + SECOND)
    found = study_usage(folder)
    first = JobUsage(
        id="7_0", state="COMPLETED", elapsed_s=61, max_rss_gb=1.5 * 2**30 / 1e9,
        tres="billing=2,cpu=2,mem=4G,node=1", energy_wh=10.0,
    )  # fmt: skip
    assert found["7_0"] == first
    second = found["7_1"]
    assert (second.state, second.max_rss_gb, second.energy_wh) == ("CANCELLED", None, None)


def test_usage_is_recorded_once_all_ended(folder: StudyFolder, fake) -> None:
    fake("sacct", HEADER + FIRST + SECOND.replace("CANCELLED by 1000", "RUNNING"))
    record_usage(folder)
    assert not usage_file(folder, "7").exists()
    fake("sacct", HEADER + FIRST + SECOND)
    record_usage(folder)
    fake("sacct", "error", code=1)  # accounting has forgotten it
    assert set(study_usage(folder)) == {"7_0", "7_1"}
    asked = fake.calls("sacct")
    record_usage(folder)
    assert fake.calls("sacct") == asked


def test_no_accounting_is_no_usage(folder: StudyFolder, fake) -> None:
    assert study_usage(folder) == {}
    fake("sacct", "Slurm accounting storage is disabled\n", code=1)
    assert study_usage(folder) == {}
    record_usage(folder)
    assert not usage_file(folder, "7").exists()


def test_sacct_knows_no_tasks_of_hyperqueue(folder: StudyFolder, fake) -> None:
    record = {"id": "7", "kind": "worker", "count": 2, "hq_name": "quick-7-0a"}
    write_atomic(folder.jobs / "7" / "job.json", json.dumps(record))
    fake("sacct", HEADER + FIRST + SECOND)
    record_usage(folder)
    assert study_usage(folder) == {}
    assert fake.calls("sacct") == 0

"""A trial that is run again as a job of a real Slurm, and what accounting says of the study's jobs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from hpotune.slurm.job_usage import usage_file
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.cluster_studies import PATIENCE_S, RESOURCES, ended, function_study, hpotune, wait

pytestmark = pytest.mark.slurm


def test_rerun_as_a_job(slurm_cluster: Path, tmp_path: Path) -> None:
    file = function_study(tmp_path, "time.sleep(0.1)", RESOURCES, trials=2)
    hpotune("submit", file)
    wait(file, ended)
    done = hpotune("rerun", file, 1, "--slurm")
    comparison = Path(done["folder"]) / "comparison.json"
    until = time.monotonic() + PATIENCE_S
    while not comparison.is_file() and time.monotonic() < until:
        time.sleep(1)
    assert json.loads(comparison.read_text())["state"] == "equal", done
    shown = hpotune("provenance", file, 1)
    folder, job = StudyFolder(path=tmp_path / "quick"), shown["provenance"]["job"].split("_")[0]
    assert [one["state"] for one in shown["reruns"]] == ["equal"]
    assert (shown["provenance"]["host"], shown["provenance"]["partition"]) != ("", None)
    assert shown["usage"]["elapsed_s"] is not None
    assert shown["usage"]["state"] == "COMPLETED"
    assert not usage_file(folder, done["job"]).exists()  # of a rerun, which is no job of the study
    assert (folder.jobs / job / "job.json").is_file()
    assert hpotune("status", file)["jobs"] == wait(file, ended)["jobs"]

"""`hpotune plan` on a real Slurm cluster: the job script, a probe through the queue, and planned beside actual."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.cluster_studies import RESOURCES, ended, function_study, hpotune, wait

pytestmark = pytest.mark.slurm


def test_planned_beside_actual(slurm_cluster: None, tmp_path: Path) -> None:
    file = function_study(tmp_path, "time.sleep(1)", RESOURCES)
    result = hpotune("plan", file, "--probe")
    assert not (tmp_path / "quick").exists(), "a plan makes no folder"
    probed = {name for name, figure in result["figures"].items() if figure["source"] == "probed"}
    assert probed >= {"trial_s", "start_s", "queue_s", "gap_s", "follow_up_s"}
    assert result["array_limit"] > 1
    assert "#SBATCH --array=0-1%2" in result["sbatch"]
    assert hpotune("status", submitted(file))["trials"]["budget"] == 4
    wait(file, ended)
    result = hpotune("plan", file)
    assert result["actual"]["state"] == "done"
    assert result["actual"]["jobs"] == 2
    for what in ("planned", "actual"):
        assert result[what]["trials"] == 4
        assert result[what]["wall_s"] > 0
        assert result[what]["gpu_hours"] > 0
        assert result[what]["queue_s"] is not None
    assert result["figures"]["trial_s"]["source"] == "learned from 4 trials"


def submitted(file: Path) -> Path:
    hpotune("submit", file)
    return file

"""`hpotune plan` on a real Slurm cluster: the job script, a probe through the queue, and planned beside actual."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.cluster_studies import RESOURCES, ended, function_study, hpotune, wait

pytestmark = pytest.mark.slurm


def test_planned_beside_actual(slurm_cluster: None, tmp_path: Path) -> None:
    file = function_study(tmp_path, "time.sleep(1)", RESOURCES)
    told = hpotune("plan", file, "--probe")
    assert not (tmp_path / "quick").exists(), "a plan makes no folder"
    probed = {name for name, figure in told["figures"].items() if figure["source"] == "probed"}
    assert probed >= {"trial_s", "start_s", "queue_s", "gap_s", "follow_up_s"}
    assert told["array_limit"] > 1
    assert "#SBATCH --array=0-1%2" in told["sbatch"]
    assert hpotune("status", submitted(file))["trials"]["budget"] == 4
    wait(file, ended)
    told = hpotune("plan", file)
    assert told["actual"]["state"] == "done"
    assert told["actual"]["jobs"] == 2
    for what in ("planned", "actual"):
        assert told[what]["trials"] == 4
        assert told[what]["wall_s"] > 0
        assert told[what]["gpu_hours"] > 0
        assert told[what]["queue_s"] is not None
    assert told["figures"]["trial_s"]["source"] == "learned from 4 trials"


def submitted(file: Path) -> Path:
    hpotune("submit", file)
    return file

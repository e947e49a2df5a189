"""The chaos script, shortened: a few trials and one fault of each of the quick kinds, on a cluster of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.postgres import Postgres
from tests.fixtures.slurm_cluster import Script

pytestmark = [pytest.mark.slurm, pytest.mark.postgres]
ROOT = Path(__file__).parents[2]


def test_faults_lose_nothing(cluster_script: Script, server: Postgres) -> None:
    if not shutil.which("slurmctld", path="/usr/sbin:/usr/bin"):
        pytest.skip("Slurm is not installed: sudo scripts/slurm-cluster install")
    # what a start of a worker costs is much of so short a study: the ratio is held by the long run
    size = ("--trials", "20", "--faults", "8", "--parallel", "6", "--waste", "5", "--minutes", "8")
    command = [sys.executable, str(ROOT / "scripts" / "chaos"), *size, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    result = json.loads(done.stdout or "{}")
    assert done.returncode == 0, (
        f"{done.stderr}\n{json.dumps(result.get('checks'), indent=1)}\n{result.get('table')}"
    )
    assert sum(line["faults"] for line in result["table"].values()) == 8
    assert sum(len(line["ended"]) > 0 for line in result["table"].values()) >= 2
    assert {"two_submits", "garbage", "planted"} <= {*result["table"]}

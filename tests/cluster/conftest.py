"""The throw-away Slurm cluster of the tests in this folder; one that was up before them is left up."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cluster_script() -> Script:
    """Runs scripts/slurm-cluster VERB as root, without the caller's SLURM_CONF, which may be another cluster's."""
    if os.geteuid() != 0:
        pytest.skip("a throw-away Slurm cluster needs root: sudo -E pytest -m slurm tests/slurm")
    path = Path(__file__).parents[2] / "scripts" / "slurm-cluster"
    inherited = {name: value for name, value in os.environ.items() if name != "SLURM_CONF"}

    def run(verb: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([path, verb], env=inherited | env, capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def slurm_cluster(cluster_script: Script) -> Iterator[Path]:
    """Its slurm.conf, which SLURM_CONF names until the session ends."""
    if not shutil.which("slurmctld", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        pytest.skip("Slurm is not installed: sudo scripts/slurm-cluster install")
    was_up = cluster_script("status").returncode == 0
    started = cluster_script("start")
    if started.returncode != 0:
        pytest.fail(f"scripts/slurm-cluster start: {started.stderr}")
    conf = Path(started.stdout.strip().removeprefix("export SLURM_CONF="))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(conf))
        patch.setenv("HPOTUNE_POLL_S", "0")
        yield conf
    if not was_up:
        cluster_script("stop")

"""Several verbs on one study file at one moment, on a real Slurm: one study, no job doubled, nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.cluster_studies import FULL, RESOURCES, function_study, hpotune, wait

pytestmark = pytest.mark.slurm


@pytest.mark.parametrize("verbs", [("submit", "submit", "submit"), ("submit", "run", "worker")], ids="-".join)
@pytest.mark.parametrize("number", range(25 if FULL else 1))
def test_verbs_make_one_study(
    slurm_cluster: Path, tmp_path: Path, verbs: tuple[str, ...], number: int
) -> None:
    """HPOTUNE_SLURM_FULL=1 tries it 25 times."""
    file = function_study(tmp_path, "pass", f"execution: {{trials_per_job: 1}}\n{RESOURCES}", trials=4)
    started = [
        subprocess.Popen([sys.executable, "-m", "hpotune", verb, file], stderr=subprocess.PIPE, text=True)
        for verb in verbs
    ]
    said = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    assert wait(file, lambda status: status["state"] == "done")["trials"]["finished"] == 4
    jobs = [json.loads(path.read_text()) for path in (tmp_path / "quick" / "jobs").glob("*/job.json")]
    workers = sum(job["count"] for job in jobs if job["kind"] == "worker")
    assert workers == 4 or ("run" in verbs and workers < 4)
    assert [row["attempts"] for row in hpotune("trials", file)] == [1] * 4

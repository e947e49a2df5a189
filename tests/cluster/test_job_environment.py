"""What reaches a trial's process where the site or the study file says `--export=NONE`: on a real Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.cluster_studies import RESOURCES, function_study, hpotune, wait

pytestmark = pytest.mark.slurm
SEEN = (
    "assert (os.environ['MYLIB'], os.environ['MYVAR']) == ('/opt/lib', '1')\n"
    "    assert 'HPOTUNE_JOB_START' in os.environ"
)


def test_export_none_hides_nothing(
    slurm_cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    resources = RESOURCES.replace("signal_delay_s: 30", "signal_delay_s: 30, extra: {export: NONE}")
    env = 'env: {setup: ["export MYLIB=/opt/lib"], vars: {MYVAR: "1"}}'
    file = function_study(tmp_path, SEEN, f"execution: {{trials_per_job: 1}}\n{resources}\n{env}", trials=1)
    hpotune("submit", file)
    status = wait(file, lambda status: status["state"] in ("done", "stopped"))
    assert (status["state"], status["failures"]) == ("done", {})

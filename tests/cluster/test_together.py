"""Several verbs or array elements on one study file at one moment, on a real Slurm: one study, nothing doubled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.fixtures.cluster_studies import FULL, RESOURCES, function_study, hpotune, wait

pytestmark = pytest.mark.slurm
TEMPLATE = Path(__file__).parents[2] / "slurm_templates" / "array.sbatch"
ELEMENTS = 32


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


def hand_written(file: Path, *, elements: int) -> Path:
    """The template's array, all its elements at once, each with one trial of the study."""
    script = TEMPLATE.read_text()
    changes = {
        "0-9%2": f"0-{elements - 1}",
        "#SBATCH --gpus-per-node=a100:1\n": "",
        "--cpus-per-task=16": "--cpus-per-task=1 --mem=1G",
        "source .venv/bin/activate": f"export PATH={Path(sys.executable).parent}:$PATH",
    }
    for old, new in changes.items():
        assert old in script
        script = script.replace(old, new)
    (file.parent / "array.sbatch").write_text(script)
    return file.parent / "array.sbatch"


def elements_make_one_study(folder: Path, store: str) -> None:
    """All elements start at one instant, before there is a study; each evaluates one of its trials."""
    file = function_study(folder, "pass", f"store: {store!r}", trials=ELEMENTS)
    script = hand_written(file, elements=ELEMENTS)
    subprocess.run(["sbatch", "--wait", script], cwd=folder, check=False, stdout=subprocess.DEVNULL)
    logs = "".join(path.read_text() for path in sorted(folder.glob("slurm-*.out")))
    rows = hpotune("trials", file)
    assert Counter(row["state"] for row in rows) == {"finished": ELEMENTS}, logs
    assert [row["attempts"] for row in rows] == [1] * ELEMENTS, logs
    assert len({row["job"] for row in rows}) == ELEMENTS, logs
    assert len({str(row["params"]) for row in rows}) == ELEMENTS, logs


if FULL:  # a skipped test would be a failure where nothing may be skipped

    @pytest.mark.parametrize("store", ["sqlite", "journal"])
    @pytest.mark.parametrize("number", range(20))
    def test_elements_make_one_study(slurm_cluster: Path, tmp_path: Path, store: str, number: int) -> None:
        """With HPOTUNE_SLURM_FULL=1: 32 elements of a hand-written array, 20 times on each store."""
        elements_make_one_study(tmp_path, store)

    @pytest.mark.parametrize("number", range(20))
    def test_elements_share_postgres(slurm_cluster: Path, tmp_path: Path, postgres: str, number: int) -> None:
        assert os.environ["PGPASSWORD"]  # sbatch hands it to the jobs
        elements_make_one_study(tmp_path, postgres)

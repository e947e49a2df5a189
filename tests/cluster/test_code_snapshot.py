"""An array runs the code it was submitted with, to its last element; what is resumed later runs the new one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fixtures.cluster_studies import RESOURCES, ended, hpotune, wait

pytestmark = pytest.mark.slurm
PROGRAM = """\
import time
from pathlib import Path
import beside
def f(x):
    while not Path("go").exists():
        time.sleep(0.1)
    return x + beside.ADDS
"""
STUDY = f"""\
name: quick
python: f.py:f
params: {{x: {{float: [0.0, 1.0]}}}}
score: {{objective: {{metric: value, direction: minimize}}}}
budget: {{trials: 3, parallel: 1}}
execution: {{trials_per_job: 1}}
{RESOURCES}
"""


def adds(file: Path) -> list[int]:
    """What the neighbour said in each finished trial."""
    done = [row for row in hpotune("trials", file) if row["state"] == "finished"]
    return [round(row["values"]["value"] - row["params"]["params.x"]) for row in done]


def test_array_keeps_its_snapshot(slurm_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text(PROGRAM)
    (tmp_path / "beside.py").write_text("ADDS = 0\n")
    (tmp_path / "study.yaml").write_text(STUDY)
    file = tmp_path / "study.yaml"
    hpotune("submit", file)
    wait(file, lambda result: (tmp_path / "quick" / "trials" / "0" / "spec.json").exists())
    (tmp_path / "beside.py").write_text("ADDS = 100\n")
    (tmp_path / "go").touch()
    wait(file, ended)
    assert adds(file) == [0, 0, 0]
    assert hpotune("extend", file, "--trials", "+1")["next"].startswith("hpotune resume")
    assert hpotune("resume", file)["submitted"]
    wait(file, ended)
    assert adds(file) == [0, 0, 0, 100]
    codes = {path.name for path in (tmp_path / "quick" / "code").glob("[0-9a-f]*") if path.is_dir()}
    ran = [
        json.loads((tmp_path / "quick" / "trials" / str(n) / "spec.json").read_text())["code"]
        for n in (0, 2, 3)
    ]
    assert ran[0] == ran[1] != ran[2]
    assert codes == {ran[2]}  # no job that is left needs the first

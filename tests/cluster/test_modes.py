"""One study in three modes, on this machine and on Slurm: one worker, one seed, the same trials and values."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.cluster_studies import ended, hpotune, wait

pytestmark = pytest.mark.slurm

STUDY = """\
name: {name}
python: f.py:f
params: {{x: {{float: [0.0, 1.0]}}, y: {{float: [0.0, 1.0]}}}}
score: {{objective: {{metric: value, direction: minimize}}}}
search: {{algorithm: tpe, seed: 7, options: {{n_startup_trials: 2}}}}
budget: {{trials: 5, parallel: 1}}
execution: {{mode: {mode}, trials_per_job: {each}}}
resources: {{partition: a100, gpus: "a100:1", cpus: 1, time: "10:00", signal_delay_s: 30}}
"""
WAYS = [
    ("async", "auto"),
    ("sequential", "auto"),
    ("batch", "auto"),
    ("async", 2),
    ("sequential", 1),
    ("batch", 1),
]


def points(file: Path) -> list[tuple[object, object]]:
    rows = hpotune("trials", file)
    assert [row["state"] for row in rows] == ["finished"] * 5
    return [(row["params"], row["values"]) for row in rows]


def study(folder: Path, name: str, mode: str, each: object) -> Path:
    (folder / "f.py").write_text("def f(x, y):\n    return (x - 0.3) ** 2 + (y - 0.6) ** 2\n")
    file = folder / f"{name}.yaml"
    file.write_text(STUDY.format(name=name, mode=mode, each=each))
    return file


def test_modes_give_same_trials(slurm_cluster: Path, tmp_path: Path) -> None:
    here = [study(tmp_path, f"here{n}", *way) for n, way in enumerate(WAYS)]
    there = [study(tmp_path, f"there{n}", *way) for n, way in enumerate(WAYS)]
    for file in there:
        hpotune("submit", file)
    for file in here:
        hpotune("run", file)
    for file in there:
        wait(file, ended)
    found = [points(file) for file in (*here, *there)]
    assert all(one == found[0] for one in found)

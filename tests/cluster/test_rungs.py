"""Trials that go on from checkpoints, on Slurm: ASHA's rungs with a worker killed, and a population in batches."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from hpotune.cli.inspect import read_trials
from tests.fixtures.cluster_studies import RESOURCES, ended, hpotune, wait

pytestmark = pytest.mark.slurm

# What a stage leaves in its checkpoint: the points of all stages before it and its own.
STAGE = """\
import json, os, time
from pathlib import Path


def f(x, budget):
    own = Path(os.environ["HPOTUNE_TRIAL_DIR"])
    before = own / "checkpoint" / "stages.json"
    if not before.exists() and "HPOTUNE_PARENT_DIR" in os.environ:
        before = Path(os.environ["HPOTUNE_PARENT_DIR"]) / "checkpoint" / "stages.json"
    stages = json.loads(before.read_text()) if before.exists() else []
    time.sleep(0.5)
    if len(stages) == 1 and MARK:
        try:
            os.symlink(str(os.getppid()), MARK)
            time.sleep(600)
        except FileExistsError:
            pass
    stages.append([x, budget])
    (own / "checkpoint").mkdir(exist_ok=True)
    (own / "checkpoint" / "stages.json").write_text(json.dumps(stages))
    with open(STAGES, "a") as file:
        file.write(json.dumps([own.name, stages]) + "\\n")
    return (x - 0.3) ** 2 / len(stages)
"""
STUDY = """\
name: study
python: f.py:f
params: {{x: {{float: [0.0, 1.0]}}}}
score: {{objective: {{metric: value, direction: minimize}}}}
search: {search}
budget: {{trials: {trials}, parallel: {parallel}}}
execution: {{mode: {mode}, trials_per_job: {each}}}
{resources}
"""


def study(folder: Path, *, mark: Path | None = None, **keys: object) -> Path:
    folder.mkdir()
    (folder / "f.py").write_text(
        f"MARK, STAGES = {str(mark or '')!r}, {str(folder / 'stages.txt')!r}\n{STAGE}"
    )
    (folder / "study.yaml").write_text(STUDY.format(**keys, resources=RESOURCES))
    return folder / "study.yaml"


def stages(folder: Path) -> dict[int, list[list[list[float]]]]:
    """What each trial's stages left, by its number, in the order in which they ended."""
    found: dict[int, list[list[list[float]]]] = {}
    for line in (folder / "stages.txt").read_text().splitlines():
        name, result = json.loads(line)
        found.setdefault(int(name), []).append(result)
    return found


def test_rungs_survive_killed_worker(slurm_cluster: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    asha = study(
        tmp_path / "asha", mark=mark, search="{algorithm: asha, seed: 1}", trials=9, parallel=3, mode="async",
        each="auto",
    )  # fmt: skip
    pbt = study(
        tmp_path / "pbt", search="{algorithm: pbt, seed: 1, options: {population: 4, generations: 3, quantile: 0.25}}",
        trials=12, parallel=4, mode="batch", each=1,
    )  # fmt: skip
    hpotune("submit", asha)
    hpotune("submit", pbt)
    wait(asha, lambda result: mark.is_symlink())
    os.kill(int(os.readlink(mark)), signal.SIGKILL)
    wait(asha, ended)
    wait(pbt, ended)

    found, left = read_trials(asha, None)[2], stages(asha.parent)
    assert [row.number for row in found] == list(range(9))
    states = Counter(row.state for row in found)
    assert states["finished"] >= 1
    assert states["finished"] + states["stopped"] == 9
    for row in found:
        assert [len(result) for result in left[row.number]] == list(
            range(1, len(row.rung_scores) + 1)
        )  # none twice
        assert left[row.number][-1] == [[row.params["params.x"], one.budget] for one in row.rung_scores]
    assert [a.cause for row in found for a in row.attempts if a.cause] == ["killed"]

    found, left = read_trials(pbt, None)[2], stages(pbt.parent)
    assert [(row.state, row.generation) for row in found] == [("finished", n // 4) for n in range(12)]
    for row in found:
        [result] = left[row.number]
        parent = row.lineage.parent if row.lineage else None
        assert result[:-1] == ([] if parent is None else left[parent][0])
        assert result[-1][0] == row.params["params.x"]
    assert any(row.lineage and row.lineage.parent != row.lineage.predecessor for row in found)

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

# What a turn leaves in its checkpoint: the points of all turns before it and its own.
TURN = """\
import json, os, time
from pathlib import Path


def f(x, budget):
    own = Path(os.environ["HPOTUNE_TRIAL_DIR"])
    before = own / "checkpoint" / "turns.json"
    if not before.exists() and "HPOTUNE_PARENT_DIR" in os.environ:
        before = Path(os.environ["HPOTUNE_PARENT_DIR"]) / "checkpoint" / "turns.json"
    turns = json.loads(before.read_text()) if before.exists() else []
    time.sleep(0.5)
    if len(turns) == 1 and MARK:
        try:
            os.symlink(str(os.getppid()), MARK)
            time.sleep(600)
        except FileExistsError:
            pass
    turns.append([x, budget])
    (own / "checkpoint").mkdir(exist_ok=True)
    (own / "checkpoint" / "turns.json").write_text(json.dumps(turns))
    with open(TURNS, "a") as file:
        file.write(json.dumps([own.name, turns]) + "\\n")
    return (x - 0.3) ** 2 / len(turns)
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
    (folder / "f.py").write_text(f"MARK, TURNS = {str(mark or '')!r}, {str(folder / 'turns.txt')!r}\n{TURN}")
    (folder / "study.yaml").write_text(STUDY.format(**keys, resources=RESOURCES))
    return folder / "study.yaml"


def turns(folder: Path) -> dict[int, list[list[list[float]]]]:
    """What each trial's turns left, by its number, in the order in which they ended."""
    found: dict[int, list[list[list[float]]]] = {}
    for line in (folder / "turns.txt").read_text().splitlines():
        name, told = json.loads(line)
        found.setdefault(int(name), []).append(told)
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
    wait(asha, lambda told: mark.is_symlink())
    os.kill(int(os.readlink(mark)), signal.SIGKILL)
    wait(asha, ended)
    wait(pbt, ended)

    found, left = read_trials(asha, None)[2], turns(asha.parent)
    assert [row.number for row in found] == list(range(9))
    states = Counter(row.state for row in found)
    assert states["finished"] >= 1
    assert states["finished"] + states["stopped"] == 9
    for row in found:
        assert [len(told) for told in left[row.number]] == list(
            range(1, len(row.rung_scores) + 1)
        )  # none twice
        assert left[row.number][-1] == [[row.params["params.x"], one.budget] for one in row.rung_scores]
    assert [a.cause for row in found for a in row.attempts if a.cause] == ["killed"]

    found, left = read_trials(pbt, None)[2], turns(pbt.parent)
    assert [(row.state, row.generation) for row in found] == [("finished", n // 4) for n in range(12)]
    for row in found:
        [told] = left[row.number]
        parent = row.lineage.parent if row.lineage else None
        assert told[:-1] == ([] if parent is None else left[parent][0])
        assert told[-1][0] == row.params["params.x"]
    assert any(row.lineage and row.lineage.parent != row.lineage.predecessor for row in found)

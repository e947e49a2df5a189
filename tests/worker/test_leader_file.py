"""The leader of a race: the best trial with all items, and for a rerun the one that ended the trial's race."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import StudyFileError
from hpotune.records.trial import TrialRow, TrialSpec
from hpotune.worker.leader_file import LEADER, leader_of_rerun, write_leader
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.study_rows import RACE

RACED = RACE.model_copy(update={"leader": 2, "leader_stderr": 0.02})


def config(**sections: object) -> StudyConfig:
    score = {"objective": {"task": "hellaswag", "metric": "acc"}, "race": True}
    base = {"name": "s", "model": {"path": "m"}, "data": {"path": "d.jsonl"}, "budget": {"trials": 9}}
    return StudyConfig.model_validate({**base, "score": score, **sections})


def row(number: int, value: float) -> TrialRow:
    return TrialRow(
        number=number, kind="trial", state="finished", params={}, values=(value,), stderrs=(0.02,)
    )


def leader(folder: StudyFolder) -> int:
    return json.loads((folder.path / LEADER).read_text())["trial"]


def test_leader_is_best_with_all_items(tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path)
    baseline = replace(row(0, 0.9), kind="baseline")
    write_leader(folder, config(), [baseline])
    assert not (tmp_path / LEADER).exists()
    raced = replace(row(3, 0.8), state="stopped", race=RACED)
    write_leader(folder, config(), [baseline, row(1, 0.5), row(2, 0.6), raced])
    stored = json.loads((tmp_path / LEADER).read_text())
    items = str(tmp_path / "trials/2/items.npz")
    assert stored == {"trial": 2, "value": 0.6, "stderr": 0.02, "items": items}


def test_leader_satisfies_limits_and_rule(tmp_path: Path) -> None:
    folder, rows = StudyFolder(path=tmp_path), [row(1, 0.5), row(2, 0.6), replace(row(3, 0.7), breaks=("x",))]
    write_leader(folder, config(), rows)
    assert leader(folder) == 2
    slow = replace(rows[1], metrics={"peak_memory_gb": 40.0})
    quick = replace(rows[0], metrics={"peak_memory_gb": 10.0})
    write_leader(folder, config(best={"subject_to": "peak_memory_gb <= 20"}), [quick, slow])
    assert leader(folder) == 1


def test_studies_without_race_have_no_leader(tmp_path: Path) -> None:
    score = {"objective": {"task": "hellaswag", "metric": "acc"}}
    write_leader(StudyFolder(path=tmp_path), config(score=score), [row(1, 0.5)])
    write_leader(StudyFolder(path=tmp_path), config(search={"algorithm": "listed"}), [row(1, 0.5)])
    assert list(tmp_path.iterdir()) == []


def test_rerun_races_the_same_leader(tmp_path: Path) -> None:
    folder, point = StudyFolder(path=tmp_path), {"score": {"objective": [{"metric": "eval_loss"}]}}
    spec = TrialSpec.model_validate(
        {
            "study": "s",
            "number": 3,
            "kind": "trial",
            "seed": 0,
            "folder": str(tmp_path),
            "point": point,
            "leader": "x",
        }
    )
    assert leader_of_rerun(spec, row(3, 0.5), folder).leader is None
    with pytest.raises(StudyFileError, match=r"beside trial 2, whose items.npz is gone; rerun"):
        leader_of_rerun(spec, replace(row(3, 0.5), state="stopped", race=RACED), folder)
    (tmp_path / "trials/2").mkdir(parents=True)
    (tmp_path / "trials/2/items.npz").touch()
    again = leader_of_rerun(spec, replace(row(3, 0.5), state="stopped", race=RACED), folder)
    assert again.leader == str(tmp_path / LEADER)
    assert leader(folder) == 2

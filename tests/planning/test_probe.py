"""The probe: what it runs, what it extrapolates from a few steps, and that it leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import HpotuneError
from hpotune.planning.probe import STEPS, extrapolated_s, probe, probe_values_of
from hpotune.records.trial import TrialRow
from hpotune.workspace.folder import StudyFolder, folder_of
from tests.fixtures.planned_studies import write_study


def test_probe_study_has_few_trials() -> None:
    values = {
        "name": "n" * 64,
        "python": "/f.py:f",
        "budget": {"trials": 50, "gpu_hours": 3},
        "store": "postgresql://u@h/d",
        "resources": {"time": "12:00:00"},
    }
    copy = probe_values_of(values, at_once=3)
    assert copy["budget"] == {"trials": 4, "parallel": 3, "max_failed": 0}
    assert copy["execution"] == {"mode": "async", "trials_per_job": 1}
    assert len(str(copy["name"])) <= 64
    assert copy["resources"] == values["resources"], "another time limit would wait another time"
    assert "store" not in copy
    assert "keep" not in copy, "it serves fine-tuning only"


def test_fine_tuning_probe_trains_few_steps() -> None:
    copy = probe_values_of(
        {
            "name": "s",
            "model": {"path": "m"},
            "data": {"path": "d"},
            "train": {"learning_rate": 1e-4, "max_steps": 500},
        },
        at_once=1,
    )
    assert copy["train"] == {"learning_rate": 1e-4, "max_steps": STEPS}


def test_probe_of_inference_trains_nothing() -> None:
    copy = probe_values_of({"name": "s", "model": {"path": "m"}}, at_once=1)
    assert not {"train", "keep"} & copy.keys()


def tuned(train: dict) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "s",
            "model": {"path": "m"},
            "data": {"path": "d"},
            "train": train,
            "score": {"objective": {"metric": "eval_loss"}},
            "budget": {"trials": 5},
        }
    )


@pytest.mark.parametrize(
    ("train", "whole"),
    [
        ({"num_train_epochs": 2}, 2 * 63),
        ({"num_train_epochs": 2, "max_steps": 40}, 40),
        ({}, 3 * 63),
        ({"max_steps": 5}, 20),
    ],
)
def test_probe_extrapolates_pace_of_later_steps(tmp_path: Path, train: dict, whole: int) -> None:
    own = tmp_path / "trials" / "1"
    own.mkdir(parents=True)
    # the first steps take 10 s, each later one 0.5 s
    lines = [{"step": 1, "seconds": 10.0}, {"step": 20, "seconds": 19.5}]
    (own / "curve.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    metrics = {"steps": 20, "global_batch_size": 16, "train_rows": 1000}
    row = TrialRow(number=1, kind="trial", state="finished", params={}, metrics=metrics)
    assert extrapolated_s(StudyFolder(path=tmp_path), tuned(train), row) == pytest.approx((whole - 20) * 0.5)


def test_own_program_is_not_extrapolated(tmp_path: Path) -> None:
    row = TrialRow(number=1, kind="trial", state="finished", params={}, metrics={"value": 1.0})
    assert extrapolated_s(StudyFolder(path=tmp_path), tuned({}), row) == 0


def test_probe_without_slurm_runs_locally(no_slurm: None, tmp_path: Path) -> None:
    file = write_study(tmp_path)
    said: list[str] = []
    found = probe(file, folder_of(file), data_root=None, say=said.append)
    assert found["trial_s"] > 0
    assert json.loads((tmp_path / "s.probe.json").read_text()).items() >= found.items()
    assert any("plan: {trial_s:" in line for line in said)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == [
        "f.py",
        "s.probe.json",
        "s.yaml",
    ]


def test_failing_probe_reports_and_leaves_nothing(no_slurm: None, tmp_path: Path) -> None:
    file = write_study(tmp_path)
    (tmp_path / "f.py").write_text("def f(x):\n    raise ValueError('wrong phase of the moon')\n")
    with pytest.raises(HpotuneError, match="wrong phase of the moon"):
        probe(file, folder_of(file), data_root=None, say=lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == [
        "f.py",
        "s.yaml",
    ]

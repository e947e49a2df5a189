"""A model check that a rehearsal has passed is used by the trials that it holds for, and by no other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hpotune.config.schema.study_config import ModelConfig
from hpotune.finetune.model.checked_models import checked_key, find_checked, write_checked
from hpotune.finetune.model.model_checks import TokenExtent
from hpotune.finetune.rehearsal.steps import rehearse
from hpotune.records.rehearsal_record import RehearsalSpec
from hpotune.records.trial import TrialSpec
from tests.fixtures.tiny_trials import home as home
from tests.fixtures.tiny_trials import make_spec as make_spec
from tests.fixtures.tiny_trials import run_here

PLANTED = "model.path: planted by the test"


def key_of(folder: Path, **changes: object) -> str | None:
    given = {
        "rows_key": "a", "lora_sections": [{"r": 4}], "extent": TokenExtent(longest=9, largest_id=3), "labels": None,
    } | changes  # fmt: skip
    model = {"path": str(folder)} | given.pop("model", {})
    rows_key, lora = given.pop("rows_key"), given.pop("lora_sections")
    return checked_key(rows_key, ModelConfig.model_validate(model), lora, **given)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows_key": "b"},
        {"lora_sections": [{"r": 8}]},
        {"lora_sections": []},
        {"extent": TokenExtent(longest=10, largest_id=3)},
        {"labels": ["x", "y"]},
        {"model": {"dtype": "float16"}},
    ],
)
def test_other_check_has_other_key(home: Path, changes: dict) -> None:
    assert key_of(home / "model") == key_of(home / "model")
    assert key_of(home / "model", **changes) != key_of(home / "model")


def test_changed_model_has_other_key(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "model", tmp_path / "model")
    before = key_of(tmp_path / "model")
    os.utime(tmp_path / "model/config.json", (1, 1))
    assert None not in (before, key_of(tmp_path / "model"))
    assert before != key_of(tmp_path / "model")


@pytest.mark.parametrize(
    "changes", [{"rows_key": None}, {"model": {"path": "hub/id"}}, {"model": {"trust_remote_code": True}}]
)
def test_check_without_key_is_repeated(home: Path, changes: dict) -> None:
    assert key_of(home / "model", **changes) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[", '"a"'])
def test_damaged_file_is_not_used(tmp_path: Path, text: str) -> None:
    write_checked(tmp_path, "k", ["w"])
    assert find_checked(tmp_path, "k") == ["w"]
    (file,) = tmp_path.iterdir()
    file.write_text(text)
    assert find_checked(tmp_path, "k") is None


def test_trial_uses_rehearsed_check(
    make_spec: Callable[..., TrialSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = tmp_path / "prepared"
    short = {"train": {"max_steps": 1}}
    same = make_spec("same", spec={"prepared": str(prepared)}, **short)
    other = make_spec("other", spec={"prepared": str(prepared)}, lora={"r": 8}, **short)
    rehearsal = RehearsalSpec(study="s", points=[same.point], world_size=1, prepared=str(prepared))
    assert rehearse(rehearsal, report=lambda _: None).mistakes == []
    (file,) = prepared.glob("model-*.json")
    file.write_text(f'["{PLANTED}"]')
    assert PLANTED in run_here(same).metrics["warnings"]
    assert PLANTED not in run_here(other).metrics.get("warnings", [])

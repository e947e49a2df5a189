"""Presets: what they fill into a study file, what the user wrote stays, and where they are refused."""

from __future__ import annotations

from typing import Any

import pytest

from hpotune.config.load import build_study
from hpotune.config.paths import resolve
from hpotune.config.space.preset_filling import (
    filled_keys,
    preset_mistake,
    preset_note,
    stored_ranges,
    with_preset,
)
from hpotune.config.space.presets import PRESETS
from hpotune.config.yaml_source import parse_source, write_yaml

FILE: dict[str, Any] = {
    "name": "tuned",
    "space": "lora-default",
    "model": {"path": "some/model"},
    "data": {"path": "some/rows", "prompt": "alpaca"},
    "score": {"objective": {"task": "hellaswag", "metric": "acc_norm"}},
    "budget": {"trials": 4},
}
LORA_KEYS = {one.key for one in PRESETS["lora-default"].ranges}


def filled(**sections: Any) -> dict[str, Any]:
    """The values with the ranges of their preset; keyword arguments replace sections."""
    return with_preset({**FILE, **sections})


@pytest.mark.parametrize("name", PRESETS)
def test_study_with_preset_is_valid(name: str, tmp_path: Any) -> None:
    values = {**FILE, "space": name}
    source, mistakes = resolve(parse_source(write_yaml(values), path=tmp_path / "s.yaml"), home=tmp_path)
    study = build_study(source)
    assert mistakes == {}
    assert {f"{r.where[0]}.{r.where[1]}" for r in study.space.ranges} == {
        one.key for one in PRESETS[name].ranges if isinstance(one.value, dict)
    }
    assert all(r.prior is not None for r in study.space.searched)
    assert study.config.train.get("method", "lora") == PRESETS[name].method


def test_values_of_the_file_win() -> None:
    found = filled(
        lora={"r": 8, "lora_dropout": None}, train={"learning_rate": 1.0e-3, "optim": "lion_32bit"}
    )
    assert found["lora"]["r"] == 8
    assert found["lora"]["lora_dropout"] is None
    assert found["train"]["learning_rate"] == 1.0e-3
    written = {"lora.r", "lora.lora_dropout", "train.learning_rate"}
    own = {"lora": {"r": 8, "lora_dropout": None}, "train": {"learning_rate": 1, "optim": 1}}
    assert set(filled_keys(found, own)) == LORA_KEYS - written


@pytest.mark.parametrize(
    ("train", "missing"),
    [
        ({"lr_scheduler_type": "constant"}, "warmup_steps"),
        ({"lr_scheduler_type": {"choice": ["constant", "cosine"]}}, "warmup_steps"),
        ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, "global_batch_size"),
    ],
)
def test_unread_keys_are_left_out(train: dict[str, Any], missing: str) -> None:
    found = filled(train=train)["train"]
    assert missing not in found
    assert "learning_rate" in found


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"space": "lora-defualt"}, "is no known preset; did you mean 'lora-default'? valid: full-default,"),
        ({"python": "own.py:f"}, "which python does not have"),
        ({"data": None}, "the study trains nothing"),
        ({"train": {"method": "full"}}, "the file says full; write space: full-default"),
        ({"space": "full-default", "train": {"method": "lora"}}, "write space: lora-default"),
        ({"train": {"method": {"choice": ["lora", "full"]}}}, "write the ranges, each with `when`"),
    ],
)  # fmt: skip
def test_unfit_preset_is_refused(sections: dict[str, Any], said: str) -> None:
    values = {**FILE, **sections}
    assert said in (preset_mistake(values) or "")
    assert with_preset(values) == values


def test_note_names_key_and_range() -> None:
    values = filled(lora={"r": 8})
    note = preset_note(values, {**FILE, "lora": {"r": 8}})
    assert note.startswith('from preset lora-default: lora.lora_alpha: {expr: "2 * lora.r"};')
    assert "train.learning_rate: {float: [1.0e-5, 0.002], log: true, prior: 2.0e-4}" in note
    assert "lora.r:" not in note
    assert preset_note({}, {}) == ""


def test_made_study_keeps_its_ranges() -> None:
    written = {**FILE, "lora": {"r": 8}}
    stored = {**filled(lora={"r": 8}), "train": {"learning_rate": {"float": [1.0e-6, 1.0e-3], "log": True}}}
    now = filled(lora={"r": 8})
    kept = stored_ranges(now, written=written, stored=stored, written_then=written)
    assert kept["train"] == stored["train"]  # neither the new range, nor the keys that were not filled then
    assert kept["lora"] == stored["lora"]


def test_edited_file_still_differs() -> None:
    then = {**FILE, "lora": {"r": 8}}
    stored = filled(lora={"r": 8})
    removed = stored_ranges(filled(), written=FILE, stored=stored, written_then=then)
    assert removed["lora"]["r"] == {"int": [4, 256], "log": True, "prior": 16}
    changed = {**FILE, "lora": {"r": 16}}
    found = stored_ranges(filled(lora={"r": 16}), written=changed, stored=stored, written_then=then)
    assert found["lora"]["r"] == 16

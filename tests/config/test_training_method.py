"""Which keys a study file may have beside `train.method`, and where a trial keeps what it trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.config.library_keys import unknown_keys
from hpotune.config.library_values import value_error
from hpotune.config.training_method import trained_folder, trains_whole

FULL = {"method": "full"}
BOTH = {"method": {"choice": ["lora", "full"]}}
R = {"int": [4, 64]}
ONLY_LORA = {"train.method": "lora"}


@pytest.mark.parametrize(
    ("sections", "mistake"),
    [
        ({"train": FULL, "lora": {"r": 8}}, "lora.r: has no effect with train.method: full"),
        ({"train": FULL | {"loraplus_lr_ratio": 4}}, "train.loraplus_lr_ratio: has no effect with train.method: full"),
        ({"train": BOTH, "lora": {"r": R}}, "lora.r: has no effect at train.method: full; add `when: {train.method"),
        ({"train": FULL, "model": {"dtype": "float16"}}, "model.dtype: float16 cannot hold the gradients"),
        ({"train": BOTH, "lora": {"r": R | {"when": ONLY_LORA}}}, None),
        ({"train": BOTH, "lora": {"r": 8, "lora_alpha": {"expr": "2 * 8"}}}, None),
        ({"train": FULL, "model": {"dtype": "bfloat16"}}, None),
        ({"train": {"method": "lora"}, "lora": {"r": R}, "model": {"dtype": "float16"}}, None),
    ],
)  # fmt: skip
def test_keys_of_adapters_beside_full(sections: dict, mistake: str | None) -> None:
    found = [text for _, text in unknown_keys(sections)]
    assert [mistake is not None and text.startswith(mistake) for text in found] == [True] * (
        mistake is not None
    )


def test_unknown_method_is_a_mistake() -> None:
    assert value_error("train", "method", "full") is value_error("train", "method", "lora") is None
    assert "needs lora | full" in str(value_error("train", "method", "qlora"))


def test_adapter_is_the_default() -> None:
    assert trains_whole({"method": "full"})
    assert not trains_whole({})


def test_folder_of_what_was_trained(tmp_path: Path) -> None:
    assert trained_folder(tmp_path) is None
    (tmp_path / "model").mkdir()
    assert trained_folder(tmp_path) is None  # not written to its end
    (tmp_path / "model/config.json").write_text("{}")
    assert trained_folder(tmp_path) == tmp_path / "model"

"""What cannot be combined with a base model in 4 bits; its training is in tests/finetune/test_pipeline.py."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from hpotune.config.schema.study_config import ModelConfig
from hpotune.finetune.model import quantized_base
from hpotune.finetune.model.quantized_base import check_quantization, check_ranks
from hpotune.finetune.trial_errors import UserError

NF4 = ModelConfig(path="model", quantization="nf4")


@pytest.fixture(params=[True, False], ids=["installed", "absent"])
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether bitsandbytes is found."""
    spec = importlib.util.find_spec("json") if request.param else None
    monkeypatch.setattr(quantized_base.importlib.util, "find_spec", lambda _: spec)
    return bool(request.param)


def test_missing_package_is_named(installed: bool) -> None:
    check_quantization(ModelConfig(path="model"), {})
    if installed:
        check_quantization(NF4, {"init_lora_weights": "gaussian"})
    else:
        with pytest.raises(UserError, match="nf4 needs the package bitsandbytes; pip install bitsandbytes"):
            check_quantization(NF4, {})


@pytest.mark.parametrize("installed", [True], indirect=True)
@pytest.mark.parametrize(
    ("model", "lora", "said"),
    [
        (NF4.model_copy(update={"dtype": "float64"}), {}, "does not compute in model.dtype: float64"),
        (
            NF4,
            {"init_lora_weights": "pissa"},
            "lora.init_lora_weights: pissa changes or reads the base weights",
        ),
    ],
)
def test_unfit_settings_are_refused(installed: bool, model: ModelConfig, lora: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_quantization(model, lora)


def test_shards_are_refused() -> None:
    check_ranks(NF4, world_size=1)
    check_ranks(ModelConfig(path="model"), world_size=4)
    with pytest.raises(UserError, match="nf4 weights cannot be sharded over 2 ranks; use one rank a trial"):
        check_ranks(NF4, world_size=2)

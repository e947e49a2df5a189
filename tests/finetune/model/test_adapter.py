"""The adapter's start and its file: PiSSA is saved as peft itself converts it, and a random start can be repeated."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hpotune.finetune.model.adapter import WEIGHTS, attach_adapter, copy_adapter, lora_config, save_adapter
from hpotune.finetune.trial_errors import UserError
from tests.fixtures.tiny_model import tiny_model
from tests.fixtures.tiny_trials import ONE_RANK

START = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"), layers=1)


def attached(base: Path, lora: dict[str, object], *, seed: int = 0) -> peft.PeftModel:
    config = lora_config({**START, **lora}, task="causal_lm")
    return attach_adapter(AutoModelForCausalLM.from_pretrained(base), config, seed=seed, ranks=ONE_RANK)


@pytest.mark.parametrize(
    "lora",
    [
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora", "use_rslora": True},
        {"init_lora_weights": "pissa", "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 5}},
    ],
)
def test_conversion_equals_that_of_peft(base: Path, tmp_path: Path, lora: dict[str, object]) -> None:
    model = attached(base, lora)
    initial = copy_adapter(model)
    model.peft_config["default"].init_lora_weights = True  # as peft's documentation has it
    model.save_pretrained(tmp_path / "initial")
    model.peft_config["default"].init_lora_weights = lora["init_lora_weights"]
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    save_adapter(model, tmp_path / "ours", ONE_RANK, initial=initial)
    model.save_pretrained(
        tmp_path / "peft", path_initial_model_for_weight_conversion=str(tmp_path / "initial")
    )
    ours, theirs = (load_file(tmp_path / name / WEIGHTS) for name in ("ours", "peft"))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0)
    ours_config, theirs_config = (
        peft.PeftConfig.from_pretrained(tmp_path / name) for name in ("ours", "peft")
    )
    for key in ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "init_lora_weights"):
        assert getattr(ours_config, key) == getattr(theirs_config, key)


def test_random_start_ignores_the_seed(base: Path) -> None:
    """A trial continues from a parent with another seed, and the base weights must be those left by the parent."""
    one, other = (attached(base, {"init_lora_weights": "pissa_niter_2"}, seed=seed) for seed in (1, 2))
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name])


def test_ordinary_starts_differ_by_seed(base: Path) -> None:
    one, other = (copy_adapter(attached(base, {}, seed=seed)) for seed in (1, 2))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_wrong_value_names_the_section() -> None:
    with pytest.raises(UserError, match=r"^lora: .*layers_to_transform"):
        lora_config({"target_modules": "all-linear", "layers_to_transform": [1]}, task="causal_lm")

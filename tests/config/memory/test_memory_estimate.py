"""The terms of the memory estimate, by hand; the sum is compared with measured peaks in tests/finetune."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpotune.config.memory.memory_estimate import (
    GIB,
    Machine,
    TrainingPass,
    adapter_shape,
    estimate_memory,
    state_bytes,
)
from hpotune.config.memory.model_shape import UnknownMemory, shape_of_config
from tests.config.memory.conftest import LLAMA_3B

SHAPE = shape_of_config(LLAMA_3B)
PASS = TrainingPass(rows=4, tokens=512, counted=400)
GPU = Machine(gpu=True)


def estimate(training=PASS, *, lora=None, machine=GPU, **others):
    adapter = adapter_shape({"r": 16} | (lora or {}), SHAPE)
    return estimate_memory(
        SHAPE, adapter, training, **({"width": 2, "state": 8, "machine": machine} | others)
    )


def test_fixed_terms_are_those_by_hand() -> None:
    found = estimate()
    trained = 28 * 16 * (2 * (3072 + 3072) + 2 * (3072 + 1024) + 3 * (3072 + 8192))
    assert found.weights == 2 * 3_212_749_824
    assert (found.optimizer, found.gradients) == (8 * trained, 4 * trained)
    assert found.logits == 400 * 128256 * 12 + 400 * 3072 * 4


def test_each_setting_moves_its_term() -> None:
    base = estimate()
    checkpointed = estimate(replace(PASS, checkpointing=True))
    assert checkpointed.activations < base.activations / 3
    assert estimate(replace(PASS, accumulates=True)).peak == base.peak + base.gradients
    assert estimate(replace(PASS, rows=8, counted=800)).peak > base.peak + 0.9 * base.activations
    assert estimate(lora={"r": 64}).optimizer == 4 * base.optimizer
    assert estimate(lora={"target_modules": ["q_proj", "v_proj"]}).peak < base.peak
    assert estimate(lora={"lora_dropout": 0.1}).activations > base.activations
    assert estimate(state=0).optimizer == 0
    assert estimate(width=4).weights == 2 * base.weights
    assert estimate(replace(PASS, smoothing=True)).logits > 1.6 * base.logits


def test_shards_divide_weights_alone() -> None:
    one, four = estimate(), estimate(machine=Machine(gpu=True, ranks=4))
    gathered = 2 * (SHAPE.outer_parameters + 2 * SHAPE.layer_parameters)
    assert four.weights == one.weights // 4 + gathered
    assert four.activations == one.activations


def test_patterns_choose_the_same_modules() -> None:
    listed = adapter_shape({"target_modules": ["q_proj", "down_proj"]}, SHAPE)
    assert adapter_shape({"target_modules": r".*\.(q|down)_proj"}, SHAPE) == listed
    assert "o_proj" not in adapter_shape({"exclude_modules": ["o_proj"]}, SHAPE).modules


@pytest.mark.parametrize(
    "lora", [{"use_dora": True}, {"target_modules": ["lm_head"]}, {"modules_to_save": ["x"]}]
)
def test_other_adapters_are_not_estimated(lora: dict) -> None:
    with pytest.raises(UnknownMemory, match=next(iter(lora))):
        estimate(lora=lora)


def test_unknown_optimizers_count_the_most() -> None:
    assert state_bytes("something_new", momentum=False) == 12
    assert (state_bytes("sgd", momentum=False), state_bytes("sgd", momentum=True)) == (0, 4)


def test_seed_study_fits_one_a100() -> None:
    found = estimate(replace(PASS, rows=16, counted=16 * 512, checkpointing=True), lora={"r": 64})
    assert 20 * GIB < found.peak < 26 * GIB  # docs/benchmarks.md

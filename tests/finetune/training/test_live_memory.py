"""The memory estimate beside measured peaks of real steps of models of two layers: never below, at most 15 % above."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch.profiler import ProfilerActivity, profile

from hpotune.config.memory import memory_estimate
from hpotune.config.memory.full_estimate import estimate_full
from hpotune.config.memory.memory_estimate import (
    Machine,
    TrainingPass,
    adapter_shape,
    estimate_memory,
    state_bytes,
)
from hpotune.config.memory.model_shape import shape_of_config
from hpotune.finetune.distributed.fsdp import group_of_one, shard_trained
from hpotune.finetune.model.adapter import attach_adapter, lora_config
from hpotune.finetune.training.checkpoint import TrainingState
from hpotune.finetune.training.live_memory import LiveTensors, PeakMemory, measured_peak
from hpotune.finetune.training.loss import IGNORED, Row
from hpotune.finetune.training.optimizer import build_optimizer, training_arguments
from hpotune.finetune.training.training_loop import accumulate_gradients, update_weights
from tests.fixtures.tiny_trials import ONE_RANK

SIZES = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "vocab_size": 1024}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}


def test_peak_counts_each_storage_once() -> None:
    kept = torch.zeros(1000)
    with LiveTensors([kept]) as live:
        other = kept + 1
        view = other.view(10, 100)
        del other
        more = view * 2
        del more
    assert (live.peak, live.now) == (12_000, 8_000)


@pytest.mark.parametrize(
    ("dtype", "kind", "checkpointing", "chunk"),
    [
        ("float32", "qwen3", False, None),
        ("float32", "llama", True, None),
        ("float32", "llama", True, 4),
        ("float32", "phi3", True, None),
        ("bfloat16", "llama", False, None),
        ("bfloat16", "llama", False, 4),
        ("bfloat16", "qwen3", True, None),
    ],
)
def test_estimate_is_within_15_percent(
    dtype: str,
    kind: str,
    checkpointing: bool,
    chunk: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`chunk`: positions of a chunk of the loss."""
    rows, tokens, counted = 2, 32, 8 if chunk is None else 28
    if chunk is not None:
        monkeypatch.setattr(memory_estimate, "CHUNK_LOGITS", chunk * SIZES["vocab_size"])
    config = transformers.AutoConfig.for_model(kind, **SIZES, pad_token_id=0, eos_token_id=1)
    torch.manual_seed(0)
    base = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    base.config.use_cache = False
    base.requires_grad_(False)
    model = attach_adapter(base, lora_config({"r": 8}, task="causal_lm"), seed=0, ranks=ONE_RANK)
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    args = training_arguments({"optim": "adamw_torch", "max_steps": 9}, seed=0, folder=tmp_path)
    optimizer, scheduler = build_optimizer(args, model, momentum=None, steps=9)
    state = TrainingState(model=model.train(), optimizer=optimizer, scheduler=scheduler)
    ids = [[3 + number % 90 for number in range(tokens - (row == 0))] for row in range(rows)]
    batch = [Row(ids=one, targets=[IGNORED] * (len(one) - counted) + one[-counted:]) for one in ids]
    peak = PeakMemory()
    with measured_peak([*model.parameters(), *model.buffers()], ONE_RANK.device, peak):
        for _ in range(2):
            sums = accumulate_gradients(model, batch, [range(rows)], smoothing=0.0, pad_id=0, ranks=ONE_RANK)
            update_weights(state, torch.cat([sums, sums.new_zeros(2)]), max_norm=1.0, ranks=ONE_RANK)
    shape = shape_of_config(config.to_diff_dict())
    found = estimate_memory(
        shape,
        adapter_shape({"r": 8}, shape),
        TrainingPass(
            rows=rows, tokens=tokens, counted=rows * counted, checkpointing=checkpointing, chunked=True
        ),
        width=4 if dtype == "float32" else 2,
        state=state_bytes("adamw_torch", momentum=False),
        machine=Machine(gpu=False),
    )
    assert found.loss_chunk == chunk
    trained = [p for p in model.parameters() if p.requires_grad]
    assert found.gradients == sum(p.nbytes for p in trained)
    assert found.weights == sum(p.nbytes for p in {*model.parameters()} if not p.requires_grad)
    measured = (peak.bytes or 0) + found.gradients  # a trial keeps its initial adapter on the CPU
    assert 1.0 <= found.peak / measured <= 1.15, (found, measured)


def allocated_peak(step: Callable[[], None]) -> int:
    """The most bytes that a step allocates, by the profiler of torch, which sees storages that are emptied."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = profiled.profiler.kineto_results.events()
    sizes = [
        event.nbytes() for event in sorted(events, key=lambda e: e.start_ns()) if event.name() == "[memory]"
    ]
    return max(itertools.accumulate(sizes))


@pytest.mark.parametrize(
    ("dtype", "kind", "rows", "checkpointing"),
    [
        ("float32", "qwen3", 2, False),
        ("float32", "llama", 8, False),
        ("bfloat16", "qwen3", 8, False),
        ("bfloat16", "llama", 8, True),
    ],
)
def test_full_estimate_is_within_30_percent(
    tmp_path: Path, dtype: str, kind: str, rows: int, checkpointing: bool
) -> None:
    config = transformers.AutoConfig.for_model(kind, **SIZES, pad_token_id=0, eos_token_id=1)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.config.use_cache = False
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    args = training_arguments({"optim": "adamw_torch", "max_steps": 9}, seed=0, folder=tmp_path)
    ids = [[3 + number % 90 for number in range(48 - (row == 0))] for row in range(rows)]
    batch = [Row(ids=one, targets=[IGNORED] * 24 + one[24:]) for one in ids]
    with group_of_one(ONE_RANK, needed=True):
        shard_trained(model, ONE_RANK, dtype=getattr(torch, dtype))
        optimizer, scheduler = build_optimizer(args, model, momentum=None, steps=9)
        state = TrainingState(model=model.train(), optimizer=optimizer, scheduler=scheduler, whole=True)

        def step() -> None:
            sums = accumulate_gradients(model, batch, [range(rows)], smoothing=0.0, pad_id=0, ranks=ONE_RANK)
            update_weights(state, torch.cat([sums, sums.new_zeros(2)]), max_norm=1.0, ranks=ONE_RANK)

        step()  # makes the optimizer's state
        model.zero_grad()
        gc.collect()
        held = 3 * 4 * sum(one.numel() for one in model.parameters())
        measured = held + allocated_peak(step)
    shape = shape_of_config(config.to_diff_dict())
    found = estimate_full(
        shape,
        TrainingPass(rows=rows, tokens=48, counted=rows * 24, checkpointing=checkpointing),
        width=4 if dtype == "float32" else 2,
        state=state_bytes("adamw_torch", momentum=False),
        machine=Machine(gpu=False),
    )
    assert found.weights + found.optimizer == held
    assert found.gradients == found.weights == 4 * shape.parameters
    assert 1.0 <= found.peak / measured <= 1.3, (found, measured)

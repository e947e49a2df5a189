"""Compiled layers give the numbers of the uncompiled model, and leave nothing in the process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo
from torch._dynamo.utils import counters

from hpotune.finetune.training.compiled import check_compiled, compiled_layers, is_compiled
from hpotune.finetune.trial_errors import UserError
from hpotune.finetune.warm.process_state import settings
from tests.fixtures.tiny_trials import adapter_distance, run_here
from tests.fixtures.tiny_trials import home as home
from tests.fixtures.tiny_trials import make_spec as make_spec

EXACT = 1e-9
AOT = {
    "torch_compile": True,
    "torch_compile_backend": "aot_eager",
}  # traces forward and backward, without a compiler


@pytest.mark.parametrize("given", [{}, {"gradient_checkpointing": True}])
def test_compiled_trial_has_equal_numbers(
    make_spec: Any, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    frames: list[int] = []
    reset = torch._dynamo.reset

    def counted() -> None:
        frames.append(counters["frames"]["ok"])
        reset()

    monkeypatch.setattr(torch._dynamo, "reset", counted)
    lora, train = {"lora_dropout": 0.1}, {"max_steps": 4, **given}
    plain = make_spec("plain", lora=lora, train=train)
    compiled = make_spec("compiled", lora=lora, train={**train, **AOT})
    before = settings()
    results = [run_here(plain), run_here(compiled)]
    assert len(frames) == 1
    assert frames[0] > 0
    assert settings() == before
    assert adapter_distance(plain, compiled) < EXACT
    assert results[1].values == pytest.approx(results[0].values, abs=EXACT)


def test_unknown_backend_is_one_line(make_spec: Any) -> None:
    spec = make_spec(train={"torch_compile_backend": "nosuch"})
    with pytest.raises(
        UserError, match="^train.torch_compile: torch cannot compile .* backend nosuch .*; remove it$"
    ):
        run_here(spec)


def test_several_ranks_are_refused() -> None:
    train = {"torch_compile_mode": "default"}
    assert is_compiled(train)
    check_compiled(train, world_size=1)
    check_compiled({"torch_compile": False}, world_size=2)
    with pytest.raises(UserError, match="^train.torch_compile: .*; write one rank, or remove it$"):
        check_compiled(train, world_size=2)


def test_model_without_layers_is_refused() -> None:
    with (
        pytest.raises(UserError, match="names no repeated layers"),
        compiled_layers(torch.nn.Linear(2, 2), {"torch_compile": True}),
    ):
        pass

"""The loss in chunks is the loss at once, with the same gradients and less memory; where it cannot be, it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from hpotune.config.memory import memory_estimate
from hpotune.config.memory.memory_estimate import CHUNK_LOGITS, chunk_positions
from hpotune.finetune.model.adapter import attach_adapter, lora_config
from hpotune.finetune.training import chunked_loss
from hpotune.finetune.training.live_memory import LiveTensors
from hpotune.finetune.training.loss import IGNORED, Row, collate, mean_loss, training_loss
from hpotune.finetune.training.packing import collate_packed
from hpotune.finetune.training.pass_limit import PassLimit
from tests.fixtures.tiny_trials import ONE_RANK

EXACT = 1e-12
SIZE = {
    "vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**SIZE),
    "tied": lambda: transformers.LlamaConfig(**SIZE, tie_word_embeddings=True),
    "gemma2": lambda: transformers.Gemma2Config(**SIZE, final_logit_softcapping=3.0),
    "cohere": lambda: transformers.CohereConfig(**SIZE, logit_scale=0.3),
    "granite": lambda: transformers.GraniteConfig(**SIZE, logits_scaling=4.0),
}


def adapted(name: str = "llama", lora: dict[str, Any] | None = None, **values: Any) -> torch.nn.Module:
    """A float64 model with a LoRA adapter whose B matrices are not zero."""
    torch.manual_seed(0)
    config = CONFIGS[name]()
    config.update(values)
    base = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").double()
    base.config.use_cache = False
    base.requires_grad_(False)
    given = lora_config({"r": 4, **(lora or {})}, task="causal_lm")
    model: torch.nn.Module = attach_adapter(base, given, seed=0, ranks=ONE_RANK)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def rows(count: int = 4, tokens: int = 9) -> list[Row]:
    ids = [[3 + (row * 7 + one * 5) % 50 for one in range(tokens - row)] for row in range(count)]
    return [Row(ids=one, targets=[IGNORED, IGNORED, *one[2:]]) for one in ids]


def gradients(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def both(model: torch.nn.Module, *, smoothing: float = 0.0, packed: bool = False) -> list[tuple[Any, Any]]:
    """Loss and gradients at once and in chunks."""
    found, device = [], torch.device("cpu")
    batch = collate(rows(), pad_id=0, device=device)
    if packed:
        batch = collate_packed([rows()[:2], rows()[2:]], pad_id=0, device=device)
    for chunked in (False, True):
        model.zero_grad()
        loss = training_loss(model, batch, smoothing=smoothing, chunked=chunked)
        loss.backward()
        found.append((loss.detach(), gradients(model)))
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Chunks of five positions; the list gets the size of each computation in chunks."""
    monkeypatch.setattr(memory_estimate, "CHUNK_LOGITS", 5 * 61)
    used: list[int] = []
    original = chunked_loss._chunks
    monkeypatch.setattr(
        chunked_loss, "_chunks", lambda positions, size: used.append(size) or original(positions, size)
    )
    return used


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_chunked_gradients_are_equal(small: list[int], name: str, smoothing: float) -> None:
    (at_once, wanted), (in_chunks, found) = both(adapted(name), smoothing=smoothing)
    assert small == [5]
    assert abs(float(at_once - in_chunks)) < EXACT * abs(float(at_once))
    assert float((wanted - found).abs().max()) < EXACT
    assert float(wanted.abs().max()) > 1e-4


def test_packed_rows_are_equal(small: list[int]) -> None:
    (at_once, wanted), (in_chunks, found) = both(adapted(), packed=True)
    assert small == [5]
    assert abs(float(at_once - in_chunks)) < EXACT * abs(float(at_once))
    assert float((wanted - found).abs().max()) < EXACT


@pytest.mark.parametrize(
    ("lora", "values"),
    [
        ({"target_modules": ["q_proj", "lm_head"]}, {}),  # the output layer is trained
        ({"modules_to_save": ["lm_head"]}, {}),
    ],
)
def test_trained_layer_is_computed_whole(
    small: list[int], lora: dict[str, Any], values: dict[str, Any]
) -> None:
    (at_once, wanted), (other, found) = both(adapted("llama", lora, **values))
    assert small == []
    assert torch.equal(at_once, other)
    assert torch.equal(wanted, found)


class Shifted(transformers.LlamaForCausalLM):
    """Adds to each logit what its config does not say."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = super().forward(*args, **kwargs)
        found.logits = found.logits * 2 + 1
        return found


def test_unknown_logits_are_computed_whole(small: list[int]) -> None:
    torch.manual_seed(0)
    base = Shifted(CONFIGS["llama"]()).double()
    base.requires_grad_(False)
    model = attach_adapter(base, lora_config({"r": 4}, task="causal_lm"), seed=0, ranks=ONE_RANK)
    both(model)
    assert small == []


def test_mean_loss_is_equal(small: list[int]) -> None:
    model, limit = adapted(), PassLimit(rows=8, logits=2**23, width=61)
    found = mean_loss(model, rows(), pad_id=0, limit=limit, ranks=ONE_RANK)
    assert small == [5]
    limit = replace(limit, chunked_loss=False)
    wanted = mean_loss(model, rows(), pad_id=0, limit=limit, ranks=ONE_RANK)
    assert small == [5]
    assert found.loss == pytest.approx(wanted.loss, rel=EXACT)
    assert found.accuracy == wanted.accuracy


def test_peak_is_one_chunk_of_logits() -> None:
    vocabulary = 128_256
    assert chunk_positions(vocabulary) == 261
    model = adapted(vocab_size=vocabulary, hidden_size=8, head_dim=4, intermediate_size=8).float()
    batch = collate([Row(ids=[3] * 400, targets=[3] * 400)] * 2, pad_id=0, device=torch.device("cpu"))
    peaks = []
    for chunked in (False, True):
        with LiveTensors([*model.parameters()]) as live:
            before = live.now
            training_loss(model, batch, chunked=chunked).backward()
        peaks.append(live.peak - before)
    assert peaks[0] > 2 * 798 * vocabulary * 4
    assert peaks[1] < 3 * CHUNK_LOGITS * 4 * 1.1

"""Logits of the counted positions alone are those of all positions, with the same gradients, or all are computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch.nn import functional

from hpotune.finetune.training import counted_logits as module
from hpotune.finetune.training.counted_logits import counted_logits

SIZE = {
    "vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WIDE = {**SIZE, "intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8}
CONFIGS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**WIDE),
    "gemma2": lambda: transformers.Gemma2Config(**WIDE, final_logit_softcapping=3.0),
    "cohere": lambda: transformers.CohereConfig(**WIDE, logit_scale=0.3),
    "granite": lambda: transformers.GraniteConfig(**WIDE, logits_scaling=4.0),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=61, n_embd=16, n_layer=2, n_head=2, n_positions=32),
    "opt": lambda: transformers.OPTConfig(**SIZE, ffn_dim=32, word_embed_proj_dim=16),
    "bloom": lambda: transformers.BloomConfig(vocab_size=61, hidden_size=16, n_layer=2, n_head=2),
    "mamba": lambda: transformers.MambaConfig(
        vocab_size=61, hidden_size=16, num_hidden_layers=2, state_size=4
    ),
}
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 0, 0, 0]])
MASK = (IDS != 0).long()
POSITIONS = torch.tensor([1, 2, 4, 7])


def made(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = transformers.AutoModelForCausalLM.from_config(CONFIGS[name]())
    return model.double().eval()


def gradients(model: torch.nn.Module, logits_NV: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    functional.cross_entropy(logits_NV, torch.full((len(logits_NV),), 3), reduction="sum").backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def heights(model: torch.nn.Module, positions: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """The logits, and the number of positions that each call of the output layer was given."""
    seen: list[int] = []
    layer = model.get_output_embeddings()
    handle = layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[:-1].numel()))
    try:
        return counted_logits(model, IDS, MASK, positions), seen
    finally:
        handle.remove()


@pytest.mark.parametrize("name", CONFIGS)
def test_counted_logits_equal_all(name: str) -> None:
    model = made(name)
    every = model(input_ids=IDS, attention_mask=MASK).logits.flatten(0, 1)[POSITIONS]
    expected = gradients(model, every)
    found, seen = heights(model, POSITIONS)
    assert torch.allclose(found, every, rtol=0, atol=1e-13)
    assert seen[-1] == len(POSITIONS)
    for one, other in zip(gradients(model, found), expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-13)


def test_no_position_keeps_the_graph() -> None:
    model = made("llama")
    found = counted_logits(model, IDS, MASK, torch.tensor([], dtype=torch.long))
    assert found.shape == (0, 61)
    assert all(not gradient.any() for gradient in gradients(model, found))
    assert model.get_input_embeddings().weight.grad is not None


def test_mode_and_hooks_are_restored() -> None:
    model = made("llama").train()
    counted_logits(model, IDS, MASK, POSITIONS)
    assert model.training
    assert not model.get_output_embeddings()._forward_pre_hooks


class Shifted(transformers.LlamaForCausalLM):
    """Adds to each logit something that depends on its position in the row."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = super().forward(*args, **kwargs)
        found.logits = found.logits + torch.arange(found.logits.shape[1])[None, :, None]
        return found


class Functional(transformers.LlamaForCausalLM):
    """Applies its output layer's weights without calling the layer."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return transformers.modeling_outputs.CausalLMOutput(logits=hidden @ self.lm_head.weight.T)


class Strict(transformers.LlamaForCausalLM):
    """Refuses logits of another shape than its rows."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        found = super().forward(input_ids=input_ids, attention_mask=attention_mask)
        found.logits = found.logits.view(*input_ids.shape, -1)
        return found


@pytest.mark.parametrize("kind", [Shifted, Functional, Strict])
def test_unusual_model_computes_all_logits(kind: Any) -> None:
    torch.manual_seed(0)
    model = kind(CONFIGS["llama"]()).double().eval()
    every = model(input_ids=IDS, attention_mask=MASK).logits.flatten(0, 1)[POSITIONS]
    for _ in range(2):
        found, seen = heights(model, POSITIONS)
        assert torch.equal(found, every)
    assert set(seen) <= {IDS.numel()}


def test_not_finite_logits_are_all_computed() -> None:
    model = made("llama")
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(torch.nan)
    found = counted_logits(model, IDS, MASK, POSITIONS)
    assert (found.shape, bool(found.isnan().all())) == ((4, 61), True)


def test_models_of_a_kind_share_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_forms", {})
    first, second = made("llama"), made("llama")
    _, seen = heights(first, POSITIONS)
    assert len(seen) == 3
    found, seen = heights(second, POSITIONS)
    assert seen == [len(POSITIONS)]
    assert torch.allclose(found, heights(first, POSITIONS)[0], rtol=0, atol=1e-13)


def test_patched_layer_is_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_forms", {})
    heights(made("llama"), POSITIONS)
    model = made("llama")
    layer = model.get_output_embeddings()
    layer.register_forward_hook(lambda _, __, found: found + torch.arange(found.shape[1])[None, :, None])
    every = model(input_ids=IDS, attention_mask=MASK).logits.flatten(0, 1)[POSITIONS]
    assert torch.equal(counted_logits(model, IDS, MASK, POSITIONS), every)


def test_logits_without_number_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_forms", {})
    broken = made("llama")
    broken.get_output_embeddings().weight.data.fill_(torch.nan)
    assert counted_logits(broken, IDS, MASK, POSITIONS).isnan().all()
    assert module._forms == {}

"""One model: in memory after training = a fresh base model with the saved adapter = the merged export.

For every kind of adapter x kind of head, trained ten steps; the oracle loads with transformers and peft alone. What
cannot hold is refused before training.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from hpotune.config.schema.study_config import ModelConfig
from hpotune.finetune.model import adapter_export
from hpotune.finetune.model.adapter import attach_adapter, copy_adapter, lora_config, save_adapter
from hpotune.finetune.model.base_model import load_base
from hpotune.finetune.model.labels import write_labels
from hpotune.finetune.model.model_checks import TokenExtent, check_model
from tests.fixtures.tiny_model import tiny_tokenizer
from tests.fixtures.tiny_trials import ONE_RANK

LABELS = ["low", "mid", "top"]
SIZES: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.15,
}
SMALL_GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64}
SMALL_DISTILBERT = {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24}
RELATIVE = {
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "pooler_hidden_size": 16,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "head_dim": 4,
    "num_key_value_heads": 2,
}
BASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("Llama", "CausalLM", {"tie_word_embeddings": False}),
    "llama-tied": ("Llama", "CausalLM", {"tie_word_embeddings": True}),
    "qwen2-tied": ("Qwen2", "CausalLM", {"tie_word_embeddings": True, "num_key_value_heads": 2}),
    "gpt2": ("GPT2", "LMHeadModel", {**SMALL_GPT2}),
    "experts": ("Qwen3Moe", "CausalLM", EXPERTS),
    "llama-score": ("Llama", "CausalLM", {"tie_word_embeddings": True}),
    "bert": ("Bert", "MaskedLM", {}),
    "roberta": ("Roberta", "MaskedLM", {}),
    "distilbert": ("DistilBert", "MaskedLM", SMALL_DISTILBERT),
    "deberta": ("DebertaV2", "MaskedLM", RELATIVE),
    "distilbert-head": ("DistilBert", "SequenceClassification", {**SMALL_DISTILBERT, "num_labels": 3}),
    "electra": ("Electra", "MaskedLM", {"embedding_size": 16}),
}
CLASSIFIERS = ("llama-score", "bert", "roberta", "distilbert", "distilbert-head", "deberta", "electra")
"""Base models that get a new classification head."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @functools.cache
    def make(name: str) -> Path:
        family, head, options = BASES[name]
        folder = tmp_path_factory.mktemp(name)
        config = getattr(transformers, f"{family}Config")(**{**SIZES, **options})
        prefix = "" if head == "LMHeadModel" else "For"
        torch.manual_seed(0)
        getattr(transformers, f"{family}{prefix}{head}")(config).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        return folder

    return make


def model_config(folder: Path, name: str) -> ModelConfig:
    task = "sequence_classification" if name in CLASSIFIERS else "causal_lm"
    return ModelConfig(path=str(folder), task=task, dtype="float32")


def batch(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(5, 500, (6, 10), generator=torch.Generator().manual_seed(1))
    return ids, (torch.arange(6) % 3 if name in CLASSIFIERS else ids)


def loss_and_logits(model: torch.nn.Module, name: str) -> tuple[float, torch.Tensor]:
    ids, targets = batch(name)
    with torch.no_grad():
        out = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), labels=targets)
    return float(out.loss), out.logits


def train_and_save(folder: Path, name: str, lora: dict[str, Any], out: Path) -> torch.nn.Module:
    """Ten steps of Adam; the same functions as in a trial."""
    config = model_config(folder, name)
    labels = LABELS if name in CLASSIFIERS else None
    base = load_base(config, labels=labels, pad_id=0, device=torch.device("cpu"), seed=3)
    settings = lora_config({"r": 4, **lora}, task=config.task, new_modules=base.new_modules)
    model = attach_adapter(base.module, settings, seed=3, ranks=ONE_RANK)
    initial = copy_adapter(model)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    ids, targets = batch(name)
    for _ in range(10):
        model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), labels=targets).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    out.mkdir()
    write_labels(out, labels)
    save_adapter(model, out, ONE_RANK, initial=initial)
    return model


def fresh_base(folder: Path, name: str) -> torch.nn.Module:
    """As a user loads it, with other random numbers."""
    torch.manual_seed(99)
    if name in CLASSIFIERS:
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(LABELS))
        model.config.pad_token_id = 0
        return model
    return AutoModelForCausalLM.from_pretrained(folder)


QV = {"target_modules": ["q_proj", "v_proj"]}
KINDS: dict[str, dict[str, Any]] = {
    "plain": QV,
    "all-linear": {},
    "rslora": {**QV, "use_rslora": True},
    "dora": {**QV, "use_dora": True},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding-and-head": {"target_modules": ["embed_tokens", "lm_head"]},
    "saved-embedding": {**QV, "modules_to_save": ["embed_tokens"]},
    "saved-head": {**QV, "modules_to_save": ["lm_head"]},
    "saved-both": {**QV, "modules_to_save": ["lm_head", "embed_tokens"]},
    "saved-tied": {**QV, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "tokens": {**QV, "trainable_token_indices": [7, 8]},
    "pissa": {**QV, "init_lora_weights": "pissa"},
    "pissa-embedding": {"target_modules": ["q_proj", "embed_tokens"], "init_lora_weights": "pissa"},
    "pissa-niter": {**QV, "init_lora_weights": "pissa_niter_4"},
    "pissa-patterns": {
        **QV,
        "init_lora_weights": "pissa_niter_2",
        "use_rslora": True,
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"v_proj": 3},
    },
    "pissa-dora": {**QV, "init_lora_weights": "pissa", "use_dora": True},
    "olora": {**QV, "init_lora_weights": "olora"},
    "orthogonal": {**QV, "init_lora_weights": "orthogonal"},
    "mica": {**QV, "init_lora_weights": "mica"},
    "gaussian": {**QV, "init_lora_weights": "gaussian"},
    "one-layer": {**QV, "layers_to_transform": [1]},
    "patterns": {**QV, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
    "excluded": {"exclude_modules": ["o_proj"]},
    "replicated": {**QV, "layer_replication": [[0, 2], [1, 2]]},
    "all-biases": {**QV, "bias": "all"},
    "lora-biases": {**QV, "bias": "lora_only"},
    "bias-of-b": {**QV, "lora_bias": True},
    "wte": {"target_modules": ["wte", "c_attn"]},
    "wte-saved": {"target_modules": ["c_attn"], "modules_to_save": ["wte"]},
    "c_attn": {"target_modules": ["c_attn"]},
    "query": {"target_modules": ["query", "value", "query_proj", "q_lin"]},
    "query-dora": {"target_modules": ["query", "query_proj", "q_lin"], "use_dora": True, "bias": "all"},
}
LLAMA_KINDS = [kind for kind in KINDS if not kind.startswith(("wte", "c_attn", "query"))]
TABLE = {
    "llama": "plain all-linear rslora dora embedding head saved-both tokens pissa-niter pissa-dora olora mica excluded",
    "llama-tied": "embedding head embedding-and-head saved-embedding saved-head saved-both saved-tied tokens pissa "
    "pissa-embedding pissa-patterns orthogonal gaussian one-layer patterns replicated",
    "qwen2-tied": "embedding all-biases lora-biases bias-of-b saved-tied",
    "gpt2": "wte wte-saved c_attn all-linear head",
    "experts": "plain all-linear",
    "llama-score": "all-linear embedding pissa-niter saved-embedding",
    "bert": "query all-linear query-dora",
    "roberta": "query all-linear",
    "distilbert": "query all-linear",
    "deberta": "query all-linear query-dora",
    "distilbert-head": "all-linear",
    "electra": "query",
}
ROWS = [(base, kind) for base, kinds in TABLE.items() for kind in kinds.split()]


@pytest.mark.parametrize(("name", "kind"), ROWS)
def test_memory_fresh_and_merged_agree(bases: Any, tmp_path: Path, name: str, kind: str) -> None:
    folder, out = bases(name), tmp_path / "adapter"
    labels = LABELS if name in CLASSIFIERS else None
    config = model_config(folder, name)
    extent = TokenExtent(longest=10, largest_id=500)
    check_model(config, [{"r": 4, **KINDS[kind]}], tokenizer=tiny_tokenizer(), extent=extent, labels=labels)
    memory, logits = loss_and_logits(train_and_save(folder, name, KINDS[kind], out), name)
    adapter_export.main(
        [str(out), str(tmp_path / "merged"), "--merge"], {"base": str(folder), "date": "2026-01-01"}
    )
    if name in CLASSIFIERS:
        merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
        assert [merged.config.id2label[i] for i in range(3)] == LABELS
    else:
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    for model in (PeftModel.from_pretrained(fresh_base(folder, name), out), merged):
        loss, other = loss_and_logits(model, name)
        assert loss == pytest.approx(memory, abs=1e-5)
        assert torch.equal(other.argmax(-1), logits.argmax(-1))

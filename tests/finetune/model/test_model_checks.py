"""What cannot be trained, saved or merged as written is refused on the meta device, with key, numbers and next step."""

from __future__ import annotations

import functools
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from hpotune.config.schema.study_config import ModelConfig
from hpotune.finetune.model.base_model import load_base, load_tokenizer, meta_model
from hpotune.finetune.model.model_checks import TokenExtent, check_model, position_limit, token_extent
from hpotune.finetune.trial_errors import UserError
from tests.fixtures.tiny_model import tiny_tokenizer

SHAPE: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "pad_token_id": 0,
}
GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 4, "n_positions": 24}
BART = {"d_model": 16, "decoder_layers": 1, "encoder_layers": 1, "decoder_attention_heads": 4}
RELATIVE = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 4}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3_moe": {"num_key_value_heads": 2, **EXPERTS},
    "gpt2": GPT2,
    "deberta-v2": RELATIVE,
    "roberta": {"pad_token_id": 1},
}
TRIAL = TokenExtent(longest=10, largest_id=500)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @functools.cache
    def make(kind: str, head: str = "causal", **options: Any) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        config = AutoConfig.for_model(kind, **{**SHAPE, **MODELS.get(kind, {}), **options})
        classes = {
            "causal": AutoModelForCausalLM,
            "masked": transformers.AutoModelForMaskedLM,
            "body": transformers.AutoModel,
            "labels": AutoModelForSequenceClassification,
        }
        classes[head].from_config(config).save_pretrained(folder)
        return folder

    return make


def check(
    folder: Path, lora: dict[str, Any] | None = None, *, extent: TokenExtent = TRIAL, **options: Any
) -> list[str]:
    labels = options.pop("labels", None)
    task = "sequence_classification" if labels else "causal_lm"
    tokenizer = options.pop("tokenizer", tiny_tokenizer())
    config = ModelConfig(path=str(folder), task=task, **options)
    sections = [] if lora is None else [{"r": 2, **lora}]
    return check_model(config, sections, tokenizer=tokenizer, extent=extent, labels=labels)


@pytest.mark.parametrize(
    ("kind", "options", "limit"),
    [
        ("gpt2", GPT2, 24),
        ("gpt_neo", {"num_layers": 1, "attention_types": [[["global"], 1]], "num_heads": 4}, 24),
        ("gptj", {**GPT2, "rotary_dim": 4}, 24),
        ("opt", {"ffn_dim": 24, "word_embed_proj_dim": 16}, 24),
        ("bart", BART, 24),
        ("bert", {}, 24),
        ("roberta", {"pad_token_id": 1}, 22),
        ("mpnet", {"pad_token_id": 1}, 22),
        ("distilbert", {"dim": 16, "n_layers": 1, "n_heads": 4, "hidden_dim": 24}, 24),
        ("nystromformer", {}, 24),
        ("deberta-v2", RELATIVE, None),
        ("llama", {}, None),
        ("bloom", {"n_layer": 1, "n_head": 4}, None),
    ],
)
def test_position_limit_is_that_of_forward(kind: str, options: dict[str, Any], limit: int | None) -> None:
    config = AutoConfig.for_model(kind, **{**SHAPE, **options})
    causal = kind not in ("mpnet", "distilbert", "nystromformer", "deberta-v2")
    model = (
        (AutoModelForCausalLM if causal else AutoModelForSequenceClassification).from_config(config).eval()
    )
    assert position_limit(model) == limit
    for length in (limit or 40, (limit or 40) + 1):
        ids = torch.full((1, length), 5)
        if limit is not None and length > limit:
            with pytest.raises((IndexError, RuntimeError)), torch.no_grad():
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
        else:
            with torch.no_grad():
                model(input_ids=ids, attention_mask=torch.ones_like(ids))


def test_row_beyond_positions_is_refused(saved: Any) -> None:
    text = r"data.max_length: a row has 25 tokens, and .* has 24 positions; lower it to 24"
    with pytest.raises(UserError, match=text):
        check(saved("gpt2"), extent=TokenExtent(longest=25, largest_id=3))
    assert check(saved("gpt2"), extent=TokenExtent(longest=24, largest_id=3)) == []
    assert check(saved("llama"), extent=TokenExtent(longest=999, largest_id=3)) == []


def test_token_beyond_embedding_is_refused(saved: Any) -> None:
    folder, tokenizer = saved("llama"), tiny_tokenizer()
    text = r"model.tokenizer: a row has the id 512, and the embedding of .* has 512 rows \(ids 0 to 511\)"
    with pytest.raises(UserError, match=text):
        check(folder, extent=TokenExtent(longest=3, largest_id=512), tokenizer=tokenizer)
    tokenizer.add_tokens([f"<extra {i}>" for i in range(300)])
    (warning,) = check(folder, tokenizer=tokenizer)
    assert "it has 812 tokens" in warning
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    with pytest.raises(
        UserError, match=r"model.tokenizer: a padding token has the id 812, and the embedding"
    ):
        check(folder, tokenizer=tokenizer)


def test_extent_is_that_of_rows() -> None:
    assert token_extent([[1, 9], [], [3, 4, 5]]) == TokenExtent(longest=3, largest_id=9)
    assert token_extent([]) == TokenExtent(longest=0, largest_id=0)


EXPERT_LINEARS = ["q_proj", "gate_proj", "up_proj", "down_proj"]
WAYS_OUT = "name lora.target_modules without the experts"


@pytest.mark.parametrize(
    ("kind", "lora", "message"),
    [
        (
            "qwen3_moe",
            {"lora_dropout": 0.05},
            f"lora.lora_dropout: the experts .* set it to 0, or {WAYS_OUT}",
        ),
        ("qwen3_moe", {"use_dora": True}, f"lora.use_dora: the experts .* set it to false, or {WAYS_OUT}"),
        (
            "qwen3_moe",
            {"target_modules": EXPERT_LINEARS, "lora_dropout": 0.1},
            f"lora.lora_dropout: the experts .*{WAYS_OUT}",
        ),
        (
            "qwen3_moe",
            {"target_modules": ["q_proj", "gate_proj"]},
            "lora.target_modules: Cannot convert PEFT target",
        ),
        ("llama", {"target_modules": ["c_attn"]}, "lora.target_modules: Target modules .* not found"),
        ("llama", {"lora_bias": True}, "lora.lora_bias: the adapter cannot be merged into the base model"),
        (
            "llama",
            {"alora_invocation_tokens": [3]},
            "lora.alora_invocation_tokens: the adapter cannot be merged .*aLoRA does not support merging",
        ),
        (
            "llama",
            {"init_lora_weights": "pissa_niter_4", "use_dora": True},
            "lora.init_lora_weights: pissa_niter_4 is drawn anew at every load, .* write pissa, or use_dora: false",
        ),
        (
            "llama",
            {"init_lora_weights": "pissa", "r": 9, "target_modules": ["v_proj"]},
            "lora.r: 9 is above 8, the smaller side of model.layers.0.self_attn.v_proj",
        ),
        (
            "llama",
            {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4, "loftq_iter": 1}},
            "lora.init_lora_weights: loftq needs the package bitsandbytes",
        ),
        (
            "llama",
            {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
            r"lora.ensure_weight_tying: works only for embeddings in lora.modules_to_save; .* \[embed_tokens\]",
        ),
        (
            "qwen2",
            {"target_modules": ["q_proj"], "layer_replication": [[0, 1], [0, 1]]},
            "lora.layer_replication: the config of this model has one layer_types for each of its 1 layers",
        ),
        ("llama", {"exclude_modules": ".*"}, "lora.exclude_modules: "),
        ("llama", {"target_parameters": ["q_proj.weight"]}, "lora.target_parameters: "),
        (
            "llama",
            {"trainable_token_indices": [5, 600]},
            r"lora.trainable_token_indices: 600 is no token: the embedding has 512 rows \(ids 0 to 511\)",
        ),
        (
            "llama",
            {"trainable_token_indices": {"embed_tokens": [-1]}},
            "lora.trainable_token_indices: -1 is no token",
        ),
        ("gpt2", {"target_modules": ["q_proj"]}, "lora.target_modules: Target modules .* not found"),
    ],
)
def test_adapter_that_fails_is_refused(saved: Any, kind: str, lora: dict[str, Any], message: str) -> None:
    options = {"tie_word_embeddings": True} if lora.get("ensure_weight_tying") else {}
    with pytest.raises(UserError) as caught:
        check(saved(kind, **options), lora)
    assert re.match(message, str(caught.value), re.DOTALL), caught.value
    assert len(str(caught.value).splitlines()) == 1


def test_router_in_all_linear_is_said(saved: Any) -> None:
    start = (
        "lora.target_modules: the adapter also changes the router of the experts (model.layers.0.mlp.gate)"
    )
    for lora in ({}, {"exclude_modules": ["gate"]}):  # peft excludes modules, not parameters
        (warning,) = check(saved("qwen3_moe"), lora)
        assert warning.startswith(start)
    assert check(saved("qwen3_moe"), {"target_modules": EXPERT_LINEARS}) == []
    assert check(saved("qwen3_moe"), {"target_modules": ["q_proj"], "lora_dropout": 0.1}) == []


def test_name_without_effect_is_said(saved: Any) -> None:
    (warning,) = check(
        saved("llama"), {"target_modules": ["q_proj", "v_prj"], "modules_to_save": ["lm_head"]}
    )
    assert warning.startswith("lora.target_modules: the model has no module v_prj, which has no effect; ")
    assert "did you mean v_proj" in warning.replace("'", "")


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank_pattern": {"qproj": 8}}, "lora.rank_pattern: qproj matches no module"),
        ({"alpha_pattern": {"qproj": 8}}, "lora.alpha_pattern: qproj matches no module"),
        ({"layers_to_transform": [0, 29]}, "lora.layers_to_transform: the adapter has no module in layer 29"),
        ({"rank_pattern": {"q_proj": 3}, "layers_to_transform": [0]}, None),
    ],
)
def test_setting_without_effect_is_said(saved: Any, lora: dict[str, Any], message: str | None) -> None:
    found = check(saved("llama"), {"target_modules": ["q_proj"], **lora})
    assert (len(found) == 1 and found[0].startswith(message)) if message else found == []


def test_known_heads_are_not_said(saved: Any) -> None:
    assert check(saved("bert", "masked"), {"target_modules": ["query"]}, labels=["a", "b"]) == []


def test_models_on_meta_hold_no_weights(saved: Any) -> None:
    base = meta_model(ModelConfig(path=str(saved("llama"))), labels=None)
    assert {p.device.type for p in base.module.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("kind", "new"),
    [
        ("bert", ["bert.pooler.dense", "classifier"]),
        ("deberta-v2", ["classifier", "pooler.dense"]),
        ("roberta", ["classifier.dense", "classifier.out_proj"]),
        ("llama", ["score"]),
    ],
)
def test_new_modules_are_those_without_weights(saved: Any, kind: str, new: list[str]) -> None:
    folder = saved(kind, "causal" if kind == "llama" else "masked")
    config = ModelConfig(path=str(folder), task="sequence_classification")
    names = ["a", "b", "c"]
    assert meta_model(config, labels=names).new_modules == new
    loaded = load_base(config, labels=names, pad_id=0, device=torch.device("cpu"), seed=0)
    assert loaded.new_modules == new
    assert loaded.module.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_lost_weights_are_refused(saved: Any) -> None:
    lost = "model.path: .* holds no weights for lm_head.weight, which would be random numbers; its architecture is"
    with pytest.raises(UserError, match=lost):
        check(saved("llama", "body"))
    folder = saved("gpt2", n_inner=8)
    (folder / "config.json").write_text((saved("llama") / "config.json").read_text())
    with pytest.raises(
        UserError, match=r"model.path: .* holds no weights for .* and 11 more, which would be random"
    ):
        check(folder)


def test_head_of_other_size_is_refused(saved: Any) -> None:
    folder = saved("llama", "labels", num_labels=3)
    text = r"model.num_labels: the classification head of .* has 3 classes, and 4 are needed \(a, b, c, d\)"
    with pytest.raises(UserError, match=text):
        check(folder, {}, labels=("a", "b", "c", "d"))


def test_further_losses_are_named(saved: Any) -> None:
    [router] = check(saved("qwen3_moe", output_router_logits=True, router_aux_loss_coef=0.01))
    assert "its load-balancing loss (router_aux_loss_coef: 0.01) is not part of a trial's loss" in router
    assert check(saved("qwen3_moe")) == []
    labelled = saved("llama", head="labels", num_labels=2, problem_type="multi_label_classification")
    warnings = check(labelled, labels=["LABEL_0", "LABEL_1"])
    assert any(
        "problem_type: multi_label_classification; a trial trains one class" in text for text in warnings
    )


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "mica"])
def test_start_from_float64_is_refused(saved: Any, start: str) -> None:
    lora = {"init_lora_weights": start, "target_modules": ["q_proj"]}
    with pytest.raises(
        UserError, match=rf"^lora.init_lora_weights: {start} cannot start from model.dtype: float64"
    ):
        check(saved("llama"), lora, dtype="float64")
    assert check(saved("llama"), lora, dtype="float32") == []


def broken(folder: Path, file: str, content: bytes | None) -> Path:
    """The model with another content of a file, or without the file."""
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", None, "model.path: .* cannot be loaded: Error no file named model.safetensors"),
        ("model.safetensors", b"<html>", "model.path: .* cannot be loaded: .*header"),
        (
            "config.json",
            b'{"model_type": "t5"}',
            "model.task: transformers has no causal_lm model of the type of",
        ),
        ("config.json", b'{"model_type": "no-such"}', "model.path: .* cannot be loaded: .*`no-such`"),
        ("config.json", b"{", "model.path: .* cannot be loaded: It looks like the config file"),
    ],
)
def test_unusable_model_is_refused(
    saved: Any, tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    shutil.copytree(saved("llama"), tmp_path / "model")
    with pytest.raises(UserError, match=message):
        check(broken(tmp_path / "model", file, content))


def test_unusable_tokenizer_is_refused(saved: Any) -> None:
    with pytest.raises(UserError, match=r"model.tokenizer: the tokenizer of .* cannot be loaded: "):
        load_tokenizer(ModelConfig(path=str(saved("llama"))))

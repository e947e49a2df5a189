"""The check of what a model reads agrees with its predictions: tokens changed behind a position, and padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from hpotune.config.schema.study_config import ModelConfig
from hpotune.finetune.model.attention_checks import check_attention, reads_later_tokens
from hpotune.finetune.trial_errors import UserError

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
BART = {"d_model": 16, "decoder_layers": 1, "encoder_layers": 1, "decoder_attention_heads": 4}
XLM = {"emb_dim": 16, "n_layers": 1, "n_heads": 4, "vocab_size": 64, "pad_token_id": 0}
GEMMA = {**SHAPE, "head_dim": 4, "num_key_value_heads": 2}
XLNET = {"vocab_size": 64, "d_model": 16, "n_layer": 1, "n_head": 4, "d_inner": 24, "pad_token_id": 0}


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("bert", SHAPE, "is_decoder: false"),
        ("bert", {**SHAPE, "is_decoder": True}, None),
        ("roberta", SHAPE, "is_decoder: false"),
        ("xlm-roberta", SHAPE, "is_decoder: false"),
        ("electra", {**SHAPE, "embedding_size": 16}, "is_decoder: false"),
        ("rembert", {**SHAPE, "input_embedding_size": 16}, "is_decoder: false"),
        ("xlm", XLM, "causal: false"),
        ("xlm", {**XLM, "causal": True}, None),
        ("xlnet", XLNET, "model_type: xlnet"),
        ("gemma", {**GEMMA, "use_bidirectional_attention": True}, "use_bidirectional_attention: true"),
        ("gemma", GEMMA, None),
        ("gpt2", {"vocab_size": 64, "n_embd": 16, "n_layer": 1, "n_head": 4}, None),
        ("gpt_neox", SHAPE, None),
        ("llama", SHAPE, None),
        ("bart", {**SHAPE, **BART}, None),
    ],
)
def test_later_tokens_are_read_as_said(kind: str, options: dict[str, Any], reason: str | None) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options)).eval()
    assert reads_later_tokens(model) == reason
    ids = torch.arange(5, 17)[None]
    other = torch.cat([ids[:, :8], ids[:, 8:] + 20], dim=1)
    with torch.no_grad():
        first, second = (model(input_ids=x, attention_mask=torch.ones_like(x)).logits for x in (ids, other))
    assert torch.allclose(first[:, :8], second[:, :8], atol=1e-6, rtol=0) == (reason is None)
    config = ModelConfig(path="BASE")
    if reason is not None:
        with pytest.raises(UserError, match=rf"^model.path: BASE is an encoder \({reason}\): it reads"):
            list(check_attention(model, config))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("bert", SHAPE, None),
        ("llama", SHAPE, None),
        ("electra", {**SHAPE, "embedding_size": 16}, None),
        ("xlm", XLM, None),
        ("xlm", {**XLM, "summary_type": "last"}, "reads the class from the last position"),
        ("xlnet", XLNET, "reads the class from the last position"),
        ("fnet", SHAPE, "a fnet model does not mask padding everywhere"),
        ("convbert", {**SHAPE, "embedding_size": 16}, "a convbert model does not mask padding everywhere"),
    ],
)
def test_padding_is_read_as_said(kind: str, options: dict[str, Any], message: str | None) -> None:
    torch.manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **options)).eval()
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.2)
    ids = torch.arange(5, 15)[None]
    padded = torch.nn.functional.pad(ids, (0, 7))
    # FNet has no attention mask
    masks = [{} if kind == "fnet" else {"attention_mask": (x != 0).long()} for x in (ids, padded)]
    with torch.no_grad():
        first, second = (
            model(input_ids=x, **mask).logits for x, mask in zip((ids, padded), masks, strict=True)
        )
    assert torch.allclose(first, second, atol=1e-4) == (message is None)
    config = ModelConfig(path="BASE", task="sequence_classification")
    try:
        said = " ".join(check_attention(model, config))
    except UserError as error:
        said = str(error)
    assert (message in said) if message else not said

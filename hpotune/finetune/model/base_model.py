"""The frozen base and its tokenizer, loaded on the CPU of every rank.

`shard.py` then moves each rank's part to its device: a base too large for one GPU never stands whole on one.
The price is the host's memory: the base's size, times the ranks of a node, while it loads.
"""

from __future__ import annotations

import torch
import transformers

from hpotune.config.schema.study_config import Json, ModelConfig
from hpotune.finetune.model import hub
from hpotune.finetune.trial_errors import UserError


def load_tokenizer(config: ModelConfig) -> Json:
    """The tokenizer, with a padding token."""
    path, revision = config.tokenizer or config.path, None if config.tokenizer else config.revision
    with hub.offline_model(path, revision):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            hub.model_folder(path), revision=revision, trust_remote_code=config.trust_remote_code
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has neither a padding nor an end token; set model.tokenizer")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def load_base(
    config: ModelConfig, *, labels: int | None, pad_id: int, device: torch.device, seed: int
) -> torch.nn.Module:
    """The base, frozen, in evaluation mode; a missing head (of a classification) starts from `seed`."""
    heads = {
        "causal_lm": transformers.AutoModelForCausalLM,
        "sequence_classification": transformers.AutoModelForSequenceClassification,
    }
    options = {} if labels is None else {"num_labels": labels}
    torch.manual_seed(seed)
    with hub.offline_model(config.path, config.revision):
        model = heads[config.task].from_pretrained(
            hub.model_folder(config.path),
            revision=config.revision,
            dtype=dtype(config, device),
            attn_implementation=config.attn_implementation,
            trust_remote_code=config.trust_remote_code,
            **options,
        )
    model.config.pad_token_id = pad_id
    model.config.use_cache = False  # a cache of keys is dead weight in training; generation asks for its own
    model.requires_grad_(False)
    return model.eval()


def dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """Of the base: what the study says; auto is bfloat16 on a GPU, float32 on a CPU."""
    name = config.dtype
    if name == "auto":
        name = "float32" if device.type == "cpu" else "bfloat16"
    return getattr(torch, name)

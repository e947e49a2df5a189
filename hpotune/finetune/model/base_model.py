"""The frozen base model and its tokenizer, loaded on the CPU of every rank.

`fsdp.py` then moves each rank's shard to its device, so that a base model larger than a GPU's memory is never whole on
one. The cost is host memory during loading: the size of the base model, times the ranks of the node.
"""

from __future__ import annotations

import torch
import transformers

from hpotune.config.schema.study_config import ModelConfig
from hpotune.finetune.model import hub
from hpotune.finetune.trial_errors import UserError


def load_tokenizer(config: ModelConfig) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer, with a padding token (its end token if it has none).

    Raises: UserError if it has neither.
    """
    path, revision = config.tokenizer or config.path, None if config.tokenizer else config.revision
    with hub.explain_missing_model(path, revision):
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
    config: ModelConfig, *, num_labels: int | None, pad_id: int, device: torch.device, seed: int
) -> torch.nn.Module:
    """The base model, frozen and in evaluation mode; a new classification head is initialised from `seed`."""
    heads = {
        "causal_lm": transformers.AutoModelForCausalLM,
        "sequence_classification": transformers.AutoModelForSequenceClassification,
    }
    options = {} if num_labels is None else {"num_labels": num_labels}
    torch.manual_seed(seed)
    with hub.explain_missing_model(config.path, config.revision):
        model = heads[config.task].from_pretrained(
            hub.model_folder(config.path),
            revision=config.revision,
            dtype=base_dtype(config, device),
            attn_implementation=config.attn_implementation,
            trust_remote_code=config.trust_remote_code,
            **options,
        )
    model.config.pad_token_id = pad_id
    model.config.use_cache = False  # training needs no key-value cache; generation enables it itself
    model.requires_grad_(False)
    return model.eval()


def base_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The dtype of the base model: model.dtype; auto means bfloat16 on a GPU and float32 on a CPU."""
    name = config.dtype
    if name == "auto":
        name = "float32" if device.type == "cpu" else "bfloat16"
    return getattr(torch, name)

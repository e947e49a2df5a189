"""Which positions a base model reads, found on the meta device: later tokens (an encoder) and padding.

Trained as a language model, a model that reads later tokens reads the token that it must predict: the loss becomes
small, and the model has learnt nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import transformers

from hpotune.config.schema.study_config import ModelConfig
from hpotune.finetune.trial_errors import UserError

BIDIRECTIONAL = ("cpmant", "xlnet")
"""Model types that read later tokens and have no setting against it."""
MIXES_PADDING = ("canine", "convbert", "fnet", "mobilebert", "nystromformer", "yoso")
"""Model types whose classes change with the padding behind a row, measured for all classifiers of transformers 5.23:
their convolutions, Fourier transforms or approximate attentions do not mask it."""
LAST = ("last", "cls_index")
"""Values of a config's summary_type that read the last position, also where it is padding."""


def check_attention(model: torch.nn.Module, config: ModelConfig) -> Iterator[str]:
    """Check what the model reads besides the tokens before a position; yield warnings.

    Raises: UserError for a language model that reads later tokens, and for a classifier that reads the class from the
    last position of a padded row.
    """
    if config.task == "causal_lm":
        reason = reads_later_tokens(model)
        if reason:
            raise UserError(
                f"model.path: {config.path} is an encoder ({reason}): it reads the tokens that it must predict; choose "
                "a decoder such as Llama or GPT-2, or model.task: sequence_classification"
            )
        return
    pooling = getattr(getattr(model, "sequence_summary", None), "summary_type", None)
    if pooling in LAST:
        raise UserError(
            f"model.path: {config.path} reads the class from the last position (summary_type: {pooling}), "
            "which is padding where a row is shorter than others of its batch; choose another base model"
        )
    if model.config.model_type in MIXES_PADDING:
        yield (
            f"model.path: a {model.config.model_type} model does not mask padding everywhere, so that a prediction "
            "depends a little on the length of the other rows in its batch; another base model does not"
        )


def reads_later_tokens(model: torch.nn.Module) -> str | None:
    """The setting by which a language model reads later tokens, as `name: value`; None for a decoder.

    Decoders may have is_decoder: false in their config, which they do not use (GPT-NeoX): what counts is the flag of
    the modules.
    """
    config: transformers.PretrainedConfig = model.config.get_text_config()
    if config.model_type in BIDIRECTIONAL:
        return f"model_type: {config.model_type}"
    if getattr(config, "use_bidirectional_attention", None) in (True, "all"):
        return f"use_bidirectional_attention: {config.use_bidirectional_attention}".lower()
    if config.model_type == "xlm":
        return None if config.causal else "causal: false"
    flags = {bool(module.is_decoder) for module in model.modules() if hasattr(module, "is_decoder")}
    return "is_decoder: false" if flags == {False} else None

"""Whether a base model, its tokenizer, the rows and the adapters fit together, found on the meta device: no weights.

A trial and the rehearsal on the login node call `check_model` before the base model is loaded. A message starts with
the key of the study file that it concerns.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import transformers

from hpotune.config.schema.study_config import ModelConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.data.prepared_rows import TokenizedSplit
from hpotune.finetune.model.adapter_checks import check_adapter
from hpotune.finetune.model.attention_checks import check_attention
from hpotune.finetune.model.base_model import embedding_rows, meta_model
from hpotune.finetune.trial_errors import UserError

POSITIONS = re.compile(r"(^|\.)(wpe|position_embeddings|embed_positions|positions_embed|pos_encoding)$")
"""Names of tables of positions, as 46 model types of transformers 5 have them. Models that compute positions (rotary,
ALiBi, relative) have none, and their config's max_position_embeddings is no limit."""
OTHER_INPUT = re.compile(r"vision|image|entity")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenExtent:
    """The largest values in the tokenised rows."""

    longest: int
    """Tokens of the longest row that is used."""
    largest_id: int
    """The largest token id in a row."""


def token_extent(rows: Iterable[Sequence[int]]) -> TokenExtent:
    """The extent of token ids of rows; zeros without rows."""
    longest = largest_id = 0
    for ids in rows:
        longest, largest_id = max(longest, len(ids)), max(largest_id, max(ids, default=0))
    return TokenExtent(longest=longest, largest_id=largest_id)


def split_extent(split: TokenizedSplit) -> TokenExtent:
    """The extent of all rows of a study."""
    if split.longest_and_largest is None:
        return token_extent(row.ids for row in split.both.rows)
    longest, largest_id = split.longest_and_largest
    return TokenExtent(longest=longest, largest_id=largest_id)


def check_model(
    config: ModelConfig,
    lora_sections: Sequence[Mapping[str, Value]],
    *,
    tokenizer: transformers.PreTrainedTokenizerBase,
    extent: TokenExtent,
    labels: Sequence[str] | None,
) -> list[str]:
    """Check the base model with the rows, and with the adapter of every given `lora` section; return warnings.

    `extent`: of all rows for training and validation. `labels`: from `class_order`; None for a language model.
    Raises: UserError.
    """
    with quiet():
        base = meta_model(config, labels=labels)
        found = [*check_attention(base.module, config)]
        found += [*check_tokens(base.module, config, tokenizer=tokenizer, extent=extent)]
        found += loss_warnings(base.module.config, config)
        for index, lora in enumerate(lora_sections):
            base = meta_model(config, labels=labels) if index else base
            found += check_adapter(base, config, lora)
    return list(dict.fromkeys(found))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """A context without the libraries' warnings and load reports: the model is built for its shapes only."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        transformers.logging.enable_progress_bar()


def check_tokens(
    model: torch.nn.Module,
    config: ModelConfig,
    *,
    tokenizer: transformers.PreTrainedTokenizerBase,
    extent: TokenExtent,
) -> Iterator[str]:
    """Check positions and token ids; yield warnings.

    Raises: UserError if a row is longer than the model's positions, or a token id is beyond its embedding.
    """
    most = position_limit(model)
    if most is not None and extent.longest > most:
        raise UserError(
            f"data.max_length: a row has {extent.longest} tokens, and {config.path} has {most} positions; "
            f"lower it to {most}"
        )
    rows = embedding_rows(model)
    ids = {
        "row": extent.largest_id,
        "padding token": tokenizer.pad_token_id,
        "end token": tokenizer.eos_token_id,
    }
    for name, largest in ids.items():
        if largest is not None and largest >= rows:
            raise UserError(
                f"model.tokenizer: a {name} has the id {largest}, and the embedding of {config.path} has {rows} rows "
                f"(ids 0 to {rows - 1}); choose the tokenizer that belongs to the model"
            )
    if len(tokenizer) > rows:
        yield (
            f"model.tokenizer: it has {len(tokenizer)} tokens, and the embedding of {config.path} has {rows} rows; no "
            "row of the study uses the others, but a text that does cannot be scored"
        )


def position_limit(model: torch.nn.Module) -> int | None:
    """The most tokens of a row; None for a model that computes its positions.

    A table of positions may have rows that no token uses: as many as its `offset` (OPT, BART), or up to its padding row
    (RoBERTa numbers positions from there).
    """
    limits = []
    for name, module in _text_modules(model):
        if POSITIONS.search(name) and isinstance(module, torch.nn.Embedding):
            unused = int(getattr(module, "offset", 0))
            unused += 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - unused)
    buffers = dict(model.named_buffers())
    limits += [len(table) for name, table in buffers.items() if POSITIONS.search(name) and table.dim() == 2]
    if limits:
        limits += [ids.shape[-1] for name, ids in buffers.items() if name.endswith("position_ids")]
    if model.config.model_type == "mpt":  # its ALiBi table is made for max_seq_len
        limits.append(model.config.max_seq_len)
    return min(limits, default=None)


def _text_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if not OTHER_INPUT.search(name))


def loss_warnings(config: transformers.PretrainedConfig, model: ModelConfig) -> Iterator[str]:
    """A warning for each loss that the base model's config asks for, and that a trial leaves out.

    Why: the loss of a step is a mean over tokens, so that it does not depend on micro-batches and ranks; the
    load-balancing loss of a router is a product of means over a micro-batch.
    """
    text = config.get_text_config()
    if getattr(text, "output_router_logits", False):
        share = getattr(text, "router_aux_loss_coef", None)
        amount = "" if share is None else f" (router_aux_loss_coef: {share:g})"
        yield (
            f"model.path: the config of this model has output_router_logits: true; its load-balancing loss{amount} is "
            "not part of a trial's loss, which covers tokens only; keep the router out of lora.target_modules"
        )
    kind = getattr(config, "problem_type", None)
    if kind not in (None, "single_label_classification", model.problem_type):
        yield (
            f"model.path: the config of this model has problem_type: {kind}; a trial trains one class for each text "
            f"(cross entropy); otherwise write model.problem_type: {kind}"
        )

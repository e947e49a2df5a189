"""Whether a base model, its tokenizer, the rows and an adapter fit together, found on the meta device: no weights.

A trial and the rehearsal on the login node call `check_model` before the base model is loaded. A message starts with
the key of the study file that it concerns.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import peft
import torch
import transformers
from peft.tuners.lora.layer import LoraLayer, ParamWrapper

from hpotune.config.schema.study_config import ModelConfig
from hpotune.config.yaml_source import Value
from hpotune.errors import nearest
from hpotune.finetune.model import adapter
from hpotune.finetune.model.attention_checks import check_attention
from hpotune.finetune.model.base_model import BaseModel, first_line, meta_model
from hpotune.finetune.model.merging import merge
from hpotune.finetune.trial_errors import UserError

POSITIONS = re.compile(r"(^|\.)(wpe|position_embeddings|embed_positions|positions_embed|pos_encoding)$")
"""Names of tables of positions, as 46 model types of transformers 5 have them. Models that compute positions (rotary,
ALiBi, relative) have none, and their config's max_position_embeddings is no limit."""
OTHER_INPUT = re.compile(r"vision|image|entity")
ABOUT = (
    (r"modules were excluded", "exclude_modules"),
    (r"loftq", "loftq_config"),
    (r"nn\.Parameter", "target_parameters"),
    (r"target.?modules?|peft target", "target_modules"),
)
"""Patterns of peft's messages, and the key that each is about."""
ROUTER = re.compile(r"(^|\.)(gate|router)(\.|$)")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenExtent:
    """The largest values in the tokenised rows."""

    longest: int
    """Tokens of the longest row that is used."""
    largest_id: int
    """The largest token id in a row."""


def token_extent(rows: Iterable[Sequence[int]]) -> TokenExtent:
    """The extent of token ids of rows; zeros without rows."""
    filled = [ids for ids in rows if ids]
    return TokenExtent(
        longest=max((len(ids) for ids in filled), default=0),
        largest_id=max((max(ids) for ids in filled), default=0),
    )


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
        found += loss_warnings(base.module.config)
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


def embedding_rows(model: torch.nn.Module) -> int:
    """The rows of the input embedding: token ids are below this number."""
    return len(model.get_input_embeddings().weight)


def loss_warnings(config: transformers.PretrainedConfig) -> Iterator[str]:
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
    if kind not in (None, "single_label_classification"):
        yield (
            f"model.path: the config of this model has problem_type: {kind}; a trial trains one class for each text "
            "(cross entropy)"
        )


def check_adapter(base: BaseModel, config: ModelConfig, lora: Mapping[str, Value]) -> list[str]:
    """Attach the adapter to the model on the meta device, merge it, and return warnings; `base` is changed.

    Raises: UserError if peft refuses it, or if a fresh base model with the saved adapter, or the merged model, would
    differ from the model in memory.
    """
    settings = adapter.lora_config(lora, task=config.task, new_modules=base.new_modules)
    names = [name for name, _ in base.module.named_modules() if name]
    check_weight_tying(base.module, settings)
    check_replication(base.module, settings)
    check_start_dtype(config, settings)
    check_token_indices(base.module, lora)
    model = attached(base.module, settings, lora)
    found = [*unknown_names(lora, settings, modules=names), *router_warnings(model)]
    found += settings_without_effect(model, settings, lora)
    check_ranks(model, lora)
    try:
        merge(model)
    except Exception as error:
        raise UserError(
            f"lora{_unmergeable_key(lora)}: the adapter cannot be merged into the base model ({first_line(error)}); "
            "change it"
        ) from error
    return found


def attached(base: torch.nn.Module, settings: peft.LoraConfig, lora: Mapping[str, Value]) -> peft.PeftModel:
    """The model on the meta device with the adapter; initialisations that read weights are replaced.

    Raises: UserError with the key and peft's reason.
    """
    if str(settings.init_lora_weights) not in ("True", "False", "gaussian", "orthogonal"):
        settings.init_lora_weights = True
    try:
        return peft.get_peft_model(base, settings)
    except Exception as error:
        reason = first_line(error)
        if "ParamWrapper" in reason:
            key = next((key for key in ("lora_dropout", "use_dora", "lora_bias") if key in reason), None)
            where = "lora" if key is None else f"lora.{key}"
            without = {"lora_dropout": "0", "use_dora": "false", "lora_bias": "false"}.get(
                key or "", "its default"
            )
            raise UserError(
                f"{where}: the experts of this model are adapted as whole parameters, which allow no "
                f"{key or 'such option'} (peft: {reason}); set it to {without}, or name lora.target_modules without "
                "the experts, such as [q_proj, k_proj, v_proj, o_proj]"
            ) from error
        raise UserError(f"lora{_key_of(error, lora)}: {reason}") from error


def _key_of(error: Exception, lora: Mapping[str, Value]) -> str:
    """The key of `lora` that peft's message is about, as `.KEY`; empty if it names none."""
    text = str(error)
    about = next((key for pattern, key in ABOUT if re.search(pattern, text, re.IGNORECASE)), None)
    if about is not None:
        return f".{about}"
    named = [key for key in lora if re.search(rf"\b{re.escape(key)}\b", text) and key != "r"]
    return f".{max(named, key=len)}" if named else ""


def _unmergeable_key(lora: Mapping[str, Value]) -> str:
    keys = [key for key in ("lora_bias", "alora_invocation_tokens", "layer_replication") if lora.get(key)]
    return f".{keys[0]}" if keys else ""


def unknown_names(
    lora: Mapping[str, Value], settings: peft.LoraConfig, *, modules: Sequence[str]
) -> Iterator[str]:
    """A warning for each name of a module that the model does not have: peft ignores it if another one matches.

    `settings`: after peft has replaced the names of experts and added those of heads. `modules`: of the base model.
    """
    for key in ("target_modules", "modules_to_save", "exclude_modules"):
        names, kept = lora.get(key), getattr(settings, key)
        for name in names if isinstance(names, list) and not isinstance(kept, str) else []:
            if name in kept and not any(module == name or module.endswith(f".{name}") for module in modules):
                near = nearest(
                    str(name), {module.split(".")[-1] for module in modules if not module[-1].isdigit()}
                )
                yield f"lora.{key}: the model has no module {name}, which has no effect; {near}"


def settings_without_effect(
    model: peft.PeftModel, settings: peft.LoraConfig, lora: Mapping[str, Value]
) -> Iterator[str]:
    """A warning for each pattern or layer of the adapter that matches none of its modules: peft ignores it."""
    adapted = [
        name.removeprefix("base_model.model.")
        for name, m in model.named_modules()
        if isinstance(m, LoraLayer)
    ]
    for key in ("rank_pattern", "alpha_pattern"):
        written = lora.get(key)  # peft adds patterns of experts
        for pattern in written if isinstance(written, dict) else ():
            if pattern in getattr(settings, key) and not any(
                re.match(rf"(.*\.)?({pattern})$", name) for name in adapted
            ):
                yield f"lora.{key}: {pattern} matches no module of the adapter, and has no effect"
    layers = settings.layers_to_transform
    numbers = {int(part) for name in adapted for part in name.split(".") if part.isdigit()}
    for layer in layers if isinstance(layers, list) else []:
        if layer not in numbers:
            yield f"lora.layers_to_transform: the adapter has no module in layer {layer}, which has no effect"


def check_token_indices(base: torch.nn.Module, lora: Mapping[str, Value]) -> None:
    """Check that every id in `trainable_token_indices` has a row in the embedding.

    Raises: UserError.
    """
    chosen = lora.get("trainable_token_indices")
    groups = list(chosen.values()) if isinstance(chosen, dict) else [chosen]
    rows = embedding_rows(base)
    for one in [one for ids in groups if isinstance(ids, list) for one in ids]:
        if isinstance(one, int) and not 0 <= one < rows:
            raise UserError(
                f"lora.trainable_token_indices: {one} is no token: the embedding has {rows} rows (ids 0 to {rows - 1})"
            )


def check_weight_tying(base: torch.nn.Module, settings: peft.LoraConfig) -> None:
    """Check `ensure_weight_tying`, which is right for modules_to_save only.

    Why: with LoRA on the embedding peft makes the head's adapter of transposed views, which are parameters of their
    own: the optimizer would update the shared numbers twice.

    Raises: UserError.
    """
    if not settings.ensure_weight_tying:
        return
    names = [name for name, module in base.named_modules() if module is base.get_input_embeddings()]
    names += [name for name, module in base.named_modules() if module is base.get_output_embeddings()]
    saved = settings.modules_to_save or []
    if not any(name.split(".")[-1] == one.split(".")[-1] for name in names for one in saved):
        raise UserError(
            "lora.ensure_weight_tying: works only for embeddings in lora.modules_to_save; a LoRA on both would update "
            f"its shared weights twice a step; add modules_to_save: [{names[0].split('.')[-1]}], or remove it"
        )


def check_replication(base: torch.nn.Module, settings: peft.LoraConfig) -> None:
    """Check that no entry of the base model's config belongs to one layer, where layers are replicated.

    Why: peft changes num_hidden_layers only, and a model of another number of layers than layer_types cannot run.

    Raises: UserError.
    """
    if not settings.layer_replication:
        return
    config = base.config.get_text_config()
    for name, value in vars(config).items():
        if "layer" in name and isinstance(value, list) and len(value) == config.num_hidden_layers:
            raise UserError(
                f"lora.layer_replication: the config of this model has one {name} for each of its {len(value)} layers, "
                "which peft does not replicate; remove it"
            )


def check_start_dtype(config: ModelConfig, settings: peft.LoraConfig) -> None:
    """Check that an initialisation from the base weights can read their dtype.

    Raises: UserError.
    """
    start = str(settings.init_lora_weights)
    if config.dtype == "float64" and start.startswith(("pissa", "olora", "mica")):
        raise UserError(
            f"lora.init_lora_weights: {start} cannot start from model.dtype: float64 (peft allows float32, float16 and "
            "bfloat16); change one of the two"
        )


def check_ranks(model: peft.PeftModel, lora: Mapping[str, Value]) -> None:
    """Check that an initialisation from singular vectors finds as many as it needs.

    Raises: UserError.
    """
    start = str(lora.get("init_lora_weights", True))
    if not start.startswith(("pissa", "olora")):
        return
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and "default" in module.lora_A:
            small, rank = min(module.in_features, module.out_features), module.r["default"]
            if rank > small:
                raise UserError(
                    f"lora.r: {rank} is above {small}, the smaller side of {name.removeprefix('base_model.model.')}, "
                    f"and init_lora_weights: {start} needs as many singular vectors; lower it"
                )


def router_warnings(model: peft.PeftModel) -> Iterator[str]:
    """A warning if the adapter changes the routing of a mixture of experts, which `all-linear` includes."""
    names = [
        name.removeprefix("base_model.model.")
        for name, m in model.named_modules()
        if isinstance(m, LoraLayer)
    ]
    experts = any(
        isinstance(module, ParamWrapper) or ".experts" in name for name, module in model.named_modules()
    )
    routers = [name for name in names if ROUTER.search(name)]
    if experts and routers:
        yield (
            f"lora.target_modules: the adapter also changes the router of the experts ({routers[0]}); to keep the "
            "routing, name the modules, such as [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]"
        )

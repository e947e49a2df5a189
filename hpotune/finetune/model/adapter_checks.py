"""Whether an adapter fits a base model, found on the meta device: no weights.

Called by model_checks.py for every corner of the space. A message starts with the key that it concerns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import peft
import torch
from peft.tuners.lora.layer import LoraLayer, ParamWrapper

from hpotune.config.schema.study_config import ModelConfig
from hpotune.config.yaml_source import Value
from hpotune.errors import nearest
from hpotune.finetune.model import adapter
from hpotune.finetune.model.base_model import BaseModel, embedding_rows, first_line
from hpotune.finetune.model.merging import merge
from hpotune.finetune.trial_errors import UserError

ABOUT = (
    (r"modules were excluded", "exclude_modules"),
    (r"loftq", "loftq_config"),
    (r"nn\.Parameter", "target_parameters"),
    (r"target.?modules?|peft target", "target_modules"),
)
"""Patterns of peft's messages, and the key that each is about."""
ROUTER = re.compile(r"(^|\.)(gate|router)(\.|$)")


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

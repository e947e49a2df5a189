"""The LoRA adapter: attached to the base model, saved and loaded in peft's format.

Its parameters are float32 for every dtype of the base model (float64 for float64), and equal on all ranks.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import peft
import torch
from safetensors.torch import load_file

from hpotune.config.library_keys import check_lora_key
from hpotune.config.yaml_source import Value
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model.adapter_conversion import convert_to_ordinary
from hpotune.finetune.model.base_model import KNOWN_HEADS
from hpotune.finetune.trial_errors import UserError
from hpotune.workspace.atomic_files import set_usual_mode

WEIGHTS = "adapter_model.safetensors"
NEEDS_DATA = ("eva", "corda", "lora_ga")
RANDOM_START = "pissa_niter_"
TASKS = {"causal_lm": peft.TaskType.CAUSAL_LM, "sequence_classification": peft.TaskType.SEQ_CLS}
AdapterInit = Literal["exact", "rounded", "compensated", "quantised"]
"""How close the base model with a new adapter is to the base model; sanity_checks.py has a tolerance for each."""


def lora_config(lora: Mapping[str, Value], *, task: str, new_modules: Sequence[str] = ()) -> peft.LoraConfig:
    """The `lora` section of a point as peft's LoraConfig.

    `new_modules` (of a BaseModel) are trained and saved whole, besides the heads that peft knows by name.
    Raises: UserError for a key, a value or an initialisation that a trial does not support.
    """
    for key in lora:
        error_text = check_lora_key(key)
        if error_text:
            raise UserError(f"lora.{error_text}")
    if lora.get("init_lora_weights") in NEEDS_DATA:
        raise UserError(
            f"lora.init_lora_weights: {lora['init_lora_weights']} needs a pass over the data before the trial"
        )
    if str(lora.get("init_lora_weights")).startswith(RANDOM_START) and lora.get("use_dora"):
        raise UserError(
            f"lora.init_lora_weights: {lora['init_lora_weights']} is drawn anew at every load, and with use_dora it "
            "cannot be converted to an ordinary adapter; write pissa, or use_dora: false"
        )
    if lora.get("init_lora_weights") == "loftq" and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "lora.init_lora_weights: loftq needs the package bitsandbytes; pip install bitsandbytes"
        )
    options: dict[str, object] = {"target_modules": "all-linear", **lora}
    chosen = cast("list[str]", lora.get("modules_to_save") or [])
    saved = [*chosen, *_beside(new_modules, [*chosen, *KNOWN_HEADS])]
    if saved:
        options["modules_to_save"] = saved
    try:
        return peft.LoraConfig(**options, task_type=TASKS[task])
    except (TypeError, ValueError) as error:
        raise UserError(f"lora: {str(error).strip().splitlines()[0]}") from error


def _beside(new_modules: Sequence[str], saved: Sequence[str]) -> list[str]:
    """The new modules that are not inside a saved one: peft cannot save a module twice."""
    return [name for name in new_modules if not set(name.split(".")) & {one.split(".")[-1] for one in saved}]


def adapter_init(lora: Mapping[str, Value]) -> AdapterInit:
    """How close the initialisation keeps the base model."""
    kind = str(lora.get("init_lora_weights", True))
    if kind == "loftq":
        return "quantised"
    if kind == "olora" or kind.startswith("pissa"):
        return "compensated"
    return "rounded" if kind == "orthogonal" or lora.get("use_dora") else "exact"


def attach_adapter(
    base: torch.nn.Module, config: peft.LoraConfig, *, seed: int, ranks: Ranks
) -> peft.PeftModel:
    """Attach a new adapter, initialised from `seed` and equal on all ranks, and return the wrapped base model.

    A random decomposition of the base weights (pissa_niter_N) is drawn on the CPU and from a seed of its own: a trial
    that continues from a checkpoint, its own or its parent's, needs the base weights that were left then.
    """
    if str(config.init_lora_weights).startswith(RANDOM_START):
        base.cpu()  # `shard_base` moves it to the ranks' devices
        seed = 0
    torch.manual_seed(seed)
    model = peft.get_peft_model(base, config)
    wide = torch.float64 if next(base.parameters()).dtype == torch.float64 else torch.float32
    for parameter in adapter_parameters(model).values():
        parameter.data = parameter.data.to(device=ranks.device, dtype=wide)
        ranks.broadcast(parameter.data)
    return model


def adapter_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """All parameters of the adapter by name, also those that the initialisation freezes (MiCA's B)."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad or ".lora_" in name}


def trainable_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """All parameters that training changes, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def copy_adapter(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the adapter's parameters on the CPU, by name."""
    return {name: p.detach().cpu().clone() for name, p in adapter_parameters(model).items()}


def save_adapter(
    model: peft.PeftModel, folder: Path, ranks: Ranks, *, initial: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write the adapter in peft's format on rank 0, readable as the umask allows; all ranks return once it is written.

    `initial`: the adapter before the first step. An initialisation that changes the base weights (PiSSA, OLoRA) is then
    saved as an ordinary adapter, which needs the unchanged base model.
    """
    if ranks.is_main:
        # Both names of a shared parameter: peft looks up both. With an explicit state_dict the sharded base model is
        # not gathered; with save_embedding_layers=False peft does not look up the base model's vocabulary on the hub.
        named = model.named_parameters(remove_duplicate=False)
        state = {name: p.data for name, p in named if p.requires_grad or ".lora_" in name}
        model.save_pretrained(str(folder), state_dict=state, save_embedding_layers=False)
        if initial is not None and is_convertible(model.peft_config["default"]):
            convert_to_ordinary(
                folder, peft.get_peft_model_state_dict(model, initial, save_embedding_layers=False)
            )
        for path in (folder, *folder.iterdir()):
            set_usual_mode(path)  # safetensors writes 0600 for every umask (its issue 782)
    ranks.barrier()


def is_convertible(config: peft.LoraConfig) -> bool:
    """Whether the adapter minus its start is an ordinary adapter of the unchanged base model.

    DoRA is not a sum of the base weight and the adapter. PiSSA and OLoRA with DoRA are computed again at every load,
    with equal results.
    """
    start = str(config.init_lora_weights)
    return (start == "olora" or start.startswith("pissa")) and not config.use_dora


def load_adapter(model: peft.PeftModel, folder: Path) -> None:
    """Load the saved adapter into the model.

    Raises: KeyError for a saved module that the file does not hold.
    """
    peft.set_peft_model_state_dict(model, load_file(str(folder / WEIGHTS)))


def attach_saved_adapter(base: torch.nn.Module, folder: Path, *, ranks: Ranks) -> peft.PeftModel:
    """Attach the adapter in `folder` to a fresh base model, in the dtypes of training.

    A tensor that the file does not hold is NaN afterwards.
    """
    config = peft.PeftConfig.from_pretrained(str(folder))
    config.inference_mode = False  # so that its parameters are found by requires_grad
    model = attach_adapter(base, config, seed=0, ranks=ranks)
    for parameter in adapter_parameters(model).values():
        parameter.data.fill_(math.nan)
    load_adapter(model, folder)
    return model

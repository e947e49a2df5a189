"""The LoRA adapter: attached to the base model, saved and loaded in peft's format.

Its parameters are float32 for every dtype of the base model (float64 for float64), and equal on all ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import peft
import torch
from safetensors.torch import load_file

from hpotune.config.library_keys import check_lora_key
from hpotune.config.yaml_source import Value
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.trial_errors import UserError

WEIGHTS = "adapter_model.safetensors"
NEEDS_DATA = ("eva", "corda", "lora_ga")
TASKS = {"causal_lm": peft.TaskType.CAUSAL_LM, "sequence_classification": peft.TaskType.SEQ_CLS}
AdapterInit = Literal["exact", "rounded", "compensated", "quantised"]
"""How close the base model with a new adapter is to the base model; sanity_checks.py has a tolerance for each."""


def lora_config(lora: Mapping[str, Value], *, task: str) -> peft.LoraConfig:
    """The `lora` section of a point as peft's LoraConfig.

    Raises: UserError for a key or an initialisation that a trial does not support.
    """
    for key in lora:
        error_text = check_lora_key(key)
        if error_text:
            raise UserError(f"lora.{error_text}")
    if lora.get("init_lora_weights") in NEEDS_DATA:
        raise UserError(
            f"lora.init_lora_weights: {lora['init_lora_weights']} needs a pass over the data before the trial"
        )
    return peft.LoraConfig(**{"target_modules": "all-linear", **lora}, task_type=TASKS[task])


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
    """Attach a new adapter, initialised from `seed` and equal on all ranks, and return the wrapped base model."""
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


def save_adapter(model: peft.PeftModel, folder: Path, ranks: Ranks) -> None:
    """Write the adapter in peft's format on rank 0, readable by all users; all ranks return once it is written."""
    if ranks.is_main:
        # With an explicit state_dict the sharded base model is not gathered; with save_embedding_layers=False peft does
        # not look up the base model's vocabulary on the hub.
        state = {name: p.data for name, p in adapter_parameters(model).items()}
        model.save_pretrained(str(folder), state_dict=state, save_embedding_layers=False)
        folder.chmod(0o755)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors writes 0600 for every umask (its issue 782)
    ranks.barrier()


def load_adapter(model: peft.PeftModel, folder: Path) -> None:
    """Load the saved adapter into the model."""
    peft.set_peft_model_state_dict(model, load_file(str(folder / WEIGHTS)))

"""The LoRA adapter: put on the base, read and written in peft's format.

Its parameters are float32 whatever the base is (float64 on a float64 base), and the same on every rank.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import peft
import torch
from safetensors.torch import load_file

from hpotune.config.schema.study_config import Json
from hpotune.config.supported_fields import check_lora_key
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.trial_errors import UserError

WEIGHTS = "adapter_model.safetensors"
NEEDS_DATA = ("eva", "corda", "lora_ga")
TASKS = {"causal_lm": peft.TaskType.CAUSAL_LM, "sequence_classification": peft.TaskType.SEQ_CLS}
Start = Literal["exact", "rounded", "compensated", "quantised"]


def lora_config(lora: dict[str, Json], *, task: str) -> peft.LoraConfig:
    """The point's LoRA as peft knows it.

    Raises: UserError for a key or a start that a trial cannot honour.
    """
    for key in lora:
        complaint = check_lora_key(key)
        if complaint:
            raise UserError(f"lora.{complaint}")
    if lora.get("init_lora_weights") in NEEDS_DATA:
        raise UserError(
            f"lora.init_lora_weights: {lora['init_lora_weights']} needs a pass over the data before the trial"
        )
    return peft.LoraConfig(**{"target_modules": "all-linear", **lora}, task_type=TASKS[task])


def start_of(lora: dict[str, Json]) -> Start:
    """How near the base a fresh adapter starts; `truth.py` allows for it."""
    kind = str(lora.get("init_lora_weights", True))
    if kind == "loftq":
        return "quantised"
    if kind == "olora" or kind.startswith("pissa"):
        return "compensated"
    return "rounded" if kind == "orthogonal" or lora.get("use_dora") else "exact"


def attach(base: torch.nn.Module, config: peft.LoraConfig, *, seed: int, ranks: Ranks) -> peft.PeftModel:
    """The base with a fresh adapter drawn from `seed`, rank 0's on every rank."""
    torch.manual_seed(seed)
    model = peft.get_peft_model(base, config)
    wide = torch.float64 if next(base.parameters()).dtype == torch.float64 else torch.float32
    for parameter in weights(model).values():
        parameter.data = parameter.data.to(device=ranks.device, dtype=wide)
        ranks.broadcast(parameter.data)
    return model


def weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Every parameter that the adapter consists of, also one that its start keeps frozen (MiCA's B)."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad or ".lora_" in name}


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Every parameter that training moves."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def copy_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The adapter as it is now, on the CPU."""
    return {name: p.detach().cpu().clone() for name, p in weights(model).items()}


def save(model: peft.PeftModel, folder: Path, ranks: Ranks) -> None:
    """Rank 0 writes the adapter in peft's format, readable by all; the ranks return when it stands there."""
    if ranks.first_one:
        # Given by name, the sharded base is never gathered; nor is the vocabulary looked up on the hub.
        state = {name: p.data for name, p in weights(model).items()}
        model.save_pretrained(str(folder), state_dict=state, save_embedding_layers=False)
        folder.chmod(0o755)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors writes 0600 whatever the umask (its issue 782)
    ranks.wait()


def restore(model: peft.PeftModel, folder: Path) -> None:
    """The adapter on disk, put into the model."""
    peft.set_peft_model_state_dict(model, load_file(str(folder / WEIGHTS)))

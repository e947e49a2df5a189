"""Conversion of an adapter whose start changed the base weights to an ordinary one of the unchanged base model.

PiSSA and OLoRA start from factors A0, B0 of the weight W itself and train on W - s B0 A0, with the scaling s. The
trained model has the weight

    W - s B0 A0 + s B A  =  W + s [B, -B0] [A; A0],

which is an adapter of twice the rank on W. Sources: Meng, Wang, Zhang, PiSSA (2024), appendix C; peft's
`path_initial_model_for_weight_conversion`, which does the same, but not with rank patterns under rsLoRA, and needs the
initial adapter as a folder. `pissa_niter_N` has to be converted: its A0, B0 are drawn at random, and loading the
adapter would draw others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hpotune.config.yaml_source import Value

A_SIDE, B_SIDE = (".lora_A.", ".lora_embedding_A"), (".lora_B.", ".lora_embedding_B")
ROWS, COLUMNS = 0, 1


def convert_to_ordinary(folder: Path, initial: Mapping[str, torch.Tensor]) -> None:
    """Rewrite the adapter in `folder`, of peft's format; `initial`: its tensors before training, by name."""
    file = folder / "adapter_model.safetensors"
    tensors = load_file(str(file))
    joined = {name: _joined(name, tensor, initial[name].to(tensor)) for name, tensor in tensors.items()}
    save_file(joined, str(file), metadata={"format": "pt"})
    settings = folder / "adapter_config.json"
    config = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps(_of_twice_the_rank(config), indent=2, sort_keys=True), encoding="utf-8")


def _joined(name: str, trained: torch.Tensor, initial: torch.Tensor) -> torch.Tensor:
    """[A; A0] along the rank, or [B, -B0] along the rank; other tensors (a head) as trained."""
    if any(side in name for side in A_SIDE):
        return torch.cat([trained, initial], dim=ROWS).contiguous()
    if any(side in name for side in B_SIDE) and trained.dim() > 1:  # a bias of lora_B has no rank
        return torch.cat([trained, -initial], dim=COLUMNS).contiguous()
    return trained


def _of_twice_the_rank(config: dict[str, Value]) -> dict[str, Value]:
    """The config with twice the rank everywhere and the same scaling: alpha / r, or alpha / sqrt(r) for rsLoRA."""
    factor = math.sqrt(2) if config.get("use_rslora") else 2

    def times(value: Value, by: float) -> Value:
        if isinstance(value, dict):
            return {key: times(one, by) for key, one in value.items()}
        assert isinstance(value, (int, float)), "ranks and alphas are numbers"
        return value * by

    changed = {"r": times(config["r"], 2), "lora_alpha": times(config["lora_alpha"], factor)}
    for key, by in (("rank_pattern", 2), ("alpha_pattern", factor)):
        changed[key] = times(config.get(key) or {}, by)
    return config | changed | {"init_lora_weights": True}

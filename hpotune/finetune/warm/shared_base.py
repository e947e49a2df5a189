"""One base model in memory for many trials: each gets fresh modules that share its weights.

The kept modules themselves are never handed out, so hooks, replaced modules and changed configs of a trial end with its
own modules. Weights that a trial changed directly are found by a checksum.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

import torch

from hpotune.config.yaml_source import Value
from hpotune.finetune.model.adapter import adapter_init
from hpotune.finetune.model.base_model import BaseModel

WORDS = 2**20
"""8-byte words that are multiplied at once: 8 MB."""
OWN_WEIGHTS = ("modules_to_save", "trainable_token_indices", "layer_replication", "target_parameters")
"""Keys of `lora` with which training changes, copies or wraps weights of the base model."""
SHAPE_KEYS = {
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "use_rslora", "bias", "init_lora_weights",
    "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
}  # fmt: skip
"""Keys of `lora` for which a new adapter needs the shapes of the base model's weights alone."""


class SharedBase:
    """A base model on its device, and the checksum of its weights."""

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self._checksum = checksum(base.module.parameters())

    def fresh(self) -> BaseModel:
        """New modules, equal to those that were loaded, which share the weights; buffers are copies."""
        return fresh_modules(self._base)

    def is_untouched(self) -> bool:
        """Whether every weight still has its bits."""
        return checksum(self._base.module.parameters()) == self._checksum


def fresh_modules(
    base: BaseModel, *, content: Callable[[torch.Tensor], torch.Tensor] = lambda weight: weight
) -> BaseModel:
    """New modules equal to these; `content` gives each weight's data. Buffers are copies."""
    module = base.module
    memo: dict[int, object] = {
        id(one): torch.nn.Parameter(content(one.data), requires_grad=one.requires_grad)
        for one in module.parameters()
    }
    return BaseModel(module=copy.deepcopy(module, memo), new_modules=list(base.new_modules))


def is_shareable(base: BaseModel) -> bool:
    """Whether trials may share the weights: all are in the checkpoint, frozen, and plain numbers (not quantized)."""
    parameters = [*base.module.parameters()]
    plain = all(type(one) is torch.nn.Parameter and one.is_floating_point() for one in parameters)
    quantized = getattr(base.module.config, "quantization_config", None) is not None
    trained = any(one.requires_grad for one in parameters)
    return plain and not quantized and not base.new_modules and not trained


def needs_own_base(lora: Mapping[str, Value]) -> bool:
    """Whether a trial with this `lora` section changes weights of the base model, or may."""
    changes = adapter_init(lora) in ("compensated", "quantised") or lora.get("bias", "none") != "none"
    return changes or any(lora.get(key) for key in OWN_WEIGHTS)


def reads_base(lora: Mapping[str, Value]) -> bool:
    """Whether an adapter of this `lora` section may read weights of the base model when it is attached, as DoRA does.

    Every key counts as one that does but for those known not to.
    """
    start = lora.get("init_lora_weights", True)
    return start not in (True, False, "gaussian") or not lora.keys() <= SHAPE_KEYS


def checksum(weights: Iterable[torch.Tensor]) -> int:
    """A sum over all bits of the tensors, modulo 2^64, in which each 8-byte word has an odd weight by its position.

    A change of one word always changes it, and so does an exchange of words but for a chance of about 2^-63.
    """
    total = 0
    for weight in weights:
        data = weight.detach().reshape(-1).contiguous().view(torch.uint8)
        whole = data.numel() // 8 * 8
        words = data[:whole].view(torch.int64)
        factors = _factors(data.device)
        for start in range(0, words.numel(), WORDS):
            part = words[start : start + WORDS]
            total = total * 0x9E3779B97F4A7C15 + int((part * factors[: part.numel()]).sum())
        for byte in data[whole:].tolist():
            total = total * 0x9E3779B97F4A7C15 + byte
        total %= 2**64
    return total


@lru_cache(maxsize=1)
def _factors(device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(13)
    return (torch.randint(-(2**62), 2**62, (WORDS,), generator=generator) * 2 + 1).to(device)

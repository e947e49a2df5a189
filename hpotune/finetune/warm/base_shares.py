"""The rank's share of a sharded base model, kept in host memory for the trials after the first.

A trial's own shards are always copies of it, so nothing that a trial does reaches the kept ones. The modules that a
later trial gets have weights without content, since `shard_base` needs their shapes alone.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.distributed.tensor import DTensor

from hpotune.finetune.model.base_model import BaseModel
from hpotune.finetune.trial_errors import TrialError
from hpotune.finetune.warm.shared_base import checksum, fresh_modules


class BaseShares:
    """The weights by their names, and their checksum; empty until the first trial's base model is sharded."""

    def __init__(self, base: BaseModel) -> None:
        self._hollow = _hollow(base)
        self._kept: dict[str, torch.Tensor] = {}
        self._checksum = 0

    def fresh(self) -> BaseModel:
        """New modules whose weights get their content when they are sharded."""
        return replace(fresh_modules(self._hollow), when_sharded=self.restore)

    def keep(self, base: torch.nn.Module) -> None:
        """Keep the share of a base model that has just been sharded, with an adapter or without."""
        shares = _shares(base)
        self._kept = {name: share.to("cpu", copy=True) for name, share in shares.items()}
        self._checksum = checksum(shares.values())

    def restore(self, base: torch.nn.Module) -> None:
        """Copy the kept share into the base model.

        Raises: TrialError if what arrives differs from what was kept, by its checksum.
        """
        shares = _shares(base)
        if shares.keys() != self._kept.keys():
            raise TrialError("the base model kept from an earlier trial has other weights than this trial's")
        for name, share in shares.items():
            share.detach().copy_(self._kept[name])
        if checksum(shares.values()) != self._checksum:
            raise TrialError("the base model kept from an earlier trial has changed in memory")


def _shares(base: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The local shards by the names that they have without an adapter, in the order of the names."""
    found = {
        name.replace(".base_layer", ""): parameter.to_local()
        for name, parameter in base.named_parameters()
        if isinstance(parameter, DTensor)
    }
    return dict(sorted(found.items()))


def _hollow(base: BaseModel) -> BaseModel:
    """Modules like these whose weights all lie in one memory without content."""
    weights = [*base.module.parameters()]
    memory = torch.empty(max(one.numel() * one.element_size() for one in weights), dtype=torch.uint8)

    def content(one: torch.Tensor) -> torch.Tensor:
        return memory[: one.numel() * one.element_size()].view(one.dtype).view(one.shape)

    return fresh_modules(base, content=content)

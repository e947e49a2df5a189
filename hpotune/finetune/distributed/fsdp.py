"""Sharding of the base model over the ranks by torch's fully_shard; every rank keeps the whole adapter.

The adapter's gradients therefore need one all-reduce a step, and writing the adapter needs no gathering. accelerate is
not used: on CPUs it silently trains with DDP, so that a test without GPUs would not cover the sharded path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from hpotune.finetune.distributed.ranks import Ranks


def shard_base(
    base: torch.nn.Module,
    ranks: Ranks,
    *,
    replicated: Iterable[torch.nn.Parameter],
    when_sharded: Callable[[torch.nn.Module], None] | None = None,
) -> float:
    """Move the base model to the ranks' devices, sharded, and return the share of it that this rank holds.

    `replicated` (the adapter's parameters) are not sharded. `when_sharded` is called with the sharded base model. The
    hooks are registered on the base model and not on peft's wrapper, because generation calls the base model directly.
    """
    if ranks.world_size == 1:
        base.to(ranks.device)
        return 1.0
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    ignored = set(replicated)
    for layer in transformer_layers(base):
        fully_shard(layer, mesh=mesh, ignored_params=ignored)
    # The root shards what is left as one group, as tied embeddings require: input and output are one tensor.
    fully_shard(base, mesh=mesh, ignored_params=ignored)
    if when_sharded is not None:
        when_sharded(base)
    return sharded_fraction(base)


def transformer_layers(base: torch.nn.Module) -> list[torch.nn.Module]:
    """The repeated layers of the base model, by transformers' `_no_split_modules`; empty if it names none."""
    names = set(getattr(base, "_no_split_modules", None) or ())
    return [module for module in base.modules() if type(module).__name__ in names]


def sharded_fraction(model: torch.nn.Module) -> float:
    """Share of the frozen weights that this rank holds: 1.0 if unsharded, about 1 / world size if all are sharded.

    Valid before the first forward pass only: after one, torch keeps the root's own weights gathered for the backward
    pass.
    """
    frozen = [p for p in model.parameters() if not p.requires_grad]
    held = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in frozen)
    return float(held / sum(p.numel() for p in frozen))


def all_reduce_gradients(
    parameters: Iterable[torch.nn.Parameter], extra: torch.Tensor, ranks: Ranks
) -> torch.Tensor:
    """Sum the gradients and the vector `extra` over the ranks in one all-reduce, and return the summed `extra`.

    A parameter without a gradient (an expert that no token was routed to) counts as zero.
    """
    owners = list(parameters)
    parts = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in owners]
    flat = ranks.all_reduce_sum(torch.cat([*parts, extra.to(parts[0])]))
    start = 0
    for parameter in owners:
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    return flat[start:]

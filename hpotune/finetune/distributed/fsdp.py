"""Several ranks hold one base: torch's fully_shard divides its layers, the adapter stays whole on each rank.

The adapter's gradients need one all-reduce a step and its files no gathering. accelerate is not used: on CPUs
it would quietly train with DDP, and a test without GPUs would prove nothing of the sharded path.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from hpotune.finetune.distributed.ranks import Ranks


def shard(base: torch.nn.Module, ranks: Ranks, *, whole: Iterable[torch.nn.Parameter]) -> float:
    """Moves the base to the ranks' devices, a part to each, and returns this rank's share of it.

    `whole` (the adapter) is left alone.

    The hooks stand on the base, not on peft's wrapper: generation enters at the base.
    """
    if ranks.world_size == 1:
        base.to(ranks.device)
        return 1.0
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    ignored = set(whole)
    for layer in layers(base):
        fully_shard(layer, mesh=mesh, ignored_params=ignored)
    # The root takes what is left in one group, which tied embeddings need: input and output are one tensor.
    fully_shard(base, mesh=mesh, ignored_params=ignored)
    return sharded_fraction(base)


def layers(base: torch.nn.Module) -> list[torch.nn.Module]:
    """The repeated layers of the base, as transformers names them; none where it names none."""
    names = set(getattr(base, "_no_split_modules", None) or ())
    return [module for module in base.modules() if type(module).__name__ in names]


def sharded_fraction(model: torch.nn.Module) -> float:
    """Share of the frozen weights that this rank holds: 1.0 unsharded, about 1 / ranks when all are sharded.

    To be asked before a forward pass: after one, torch keeps the root's own weights gathered for the backward pass.
    """
    frozen = [p for p in model.parameters() if not p.requires_grad]
    held = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in frozen)
    return float(held / sum(p.numel() for p in frozen))


def reduce(parameters: Iterable[torch.nn.Parameter], tail: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """The `tail` summed over the ranks, and so the gradients, in a single all-reduce.

    A parameter without a gradient (an expert that no token met) counts as zero.
    """
    owners = list(parameters)
    parts = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in owners]
    flat = ranks.sum(torch.cat([*parts, tail.to(parts[0])]))
    start = 0
    for parameter in owners:
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    return flat[start:]

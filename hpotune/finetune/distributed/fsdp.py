"""Sharding of the base model over the ranks by torch's fully_shard; every rank keeps the whole adapter.

The adapter's gradients therefore need one all-reduce a step, and writing the adapter needs no gathering. Where all
weights are trained, their gradients and optimizer state are sharded as they are, and fully_shard sums the gradients.
accelerate is not used: on CPUs it silently trains with DDP, so that a test without GPUs would not cover the sharded
path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
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
    _shard(base, mesh, policy=MixedPrecisionPolicy(), ignored=set(replicated))
    if when_sharded is not None:
        when_sharded(base)
    return sharded_fraction(base)


def shard_trained(base: torch.nn.Module, ranks: Ranks, *, dtype: torch.dtype) -> float:
    """Shard a model of which every weight is trained, and return the share of it that this rank holds.

    `dtype`: in which it is computed; the weights themselves and the sums of gradients keep the dtype that they have. A
    single rank with another dtype than its weights is sharded over itself, so that it rounds where several do; the
    process group of `group_of_one` is needed for that.
    """
    own = next(base.parameters()).dtype
    base.to(ranks.device)
    if ranks.world_size == 1 and dtype == own:
        return 1.0
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    policy = MixedPrecisionPolicy() if dtype == own else MixedPrecisionPolicy(dtype, own)
    _shard(base, mesh, policy=policy, ignored=set())
    for module in base.modules():
        if isinstance(module, FSDPModule):  # a sum, which the loop divides by the tokens of all ranks
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other sum with a factor
    return sharded_fraction(base)


@contextmanager
def group_of_one(ranks: Ranks, *, needed: bool) -> Iterator[None]:
    """A context in which a single rank has a process group, as fully_shard needs; several ranks have theirs already."""
    if not needed or ranks.world_size > 1 or dist.is_initialized():
        yield
        return
    backend = "gloo" if ranks.device.type == "cpu" else "nccl"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _shard(
    base: torch.nn.Module,
    mesh: DeviceMesh,
    *,
    policy: MixedPrecisionPolicy,
    ignored: set[torch.nn.Parameter],
) -> None:
    for layer in transformer_layers(base):
        fully_shard(layer, mesh=mesh, mp_policy=policy, ignored_params=ignored)
    # The root shards what is left as one group, as tied embeddings require: input and output are one tensor.
    fully_shard(base, mesh=mesh, mp_policy=policy, ignored_params=ignored)


def transformer_layers(base: torch.nn.Module) -> list[torch.nn.Module]:
    """The repeated layers of the base model, by transformers' `_no_split_modules`; empty if it names none."""
    names = set(getattr(base, "_no_split_modules", None) or ())
    return [module for module in base.modules() if type(module).__name__ in names]


def sharded_fraction(model: torch.nn.Module) -> float:
    """Share of the frozen weights, or of all where none is, that this rank holds: about 1 / world size if sharded.

    Valid before the first forward pass only: after one, torch keeps the root's own weights gathered for the backward
    pass.
    """
    frozen = [p for p in model.parameters() if not p.requires_grad] or [*model.parameters()]
    held = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in frozen)
    return float(held / sum(p.numel() for p in frozen))


def all_reduce_gradients(
    parameters: Iterable[torch.nn.Parameter], extra: torch.Tensor, ranks: Ranks
) -> torch.Tensor:
    """Sum the gradients and the vector `extra` over the ranks in one all-reduce, and return the summed `extra`.

    A parameter without a gradient (an expert that no token was routed to) counts as zero. `parameters`: those of which
    every rank has its own gradient; none where the whole model is trained.
    """
    owners = list(parameters)
    if not owners:
        return ranks.all_reduce_sum(extra)
    parts = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in owners]
    flat = ranks.all_reduce_sum(torch.cat([*parts, extra.to(parts[0])]))
    start = 0
    for parameter in owners:
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    return flat[start:]


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor of all shards, gathered from the ranks; one that is not sharded as it is. A collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor

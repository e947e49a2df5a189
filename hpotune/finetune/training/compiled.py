"""The repeated layers of a model compiled for its training (`train.torch_compile`, `_backend`, `_mode`).

Layer by layer, so that what is compiled is small and serves every layer. Random numbers are drawn as without it: so
dropout is the same, and the numbers of a step differ by rounding alone. What torch has compiled is released at the end,
since the next trial of a kept process has other shapes, and torch compiles one function eight times at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from torch.distributed.fsdp import FSDPModule

from hpotune.config.yaml_source import Value
from hpotune.finetune.distributed.fsdp import transformer_layers
from hpotune.finetune.trial_errors import UserError

KEY = "train.torch_compile"
KEYS = ("torch_compile", "torch_compile_backend", "torch_compile_mode")
"""Keys of `train`: a backend or a mode alone switches it on, as in transformers."""


def is_compiled(train: Mapping[str, Value]) -> bool:
    """Whether the layers are compiled."""
    return any(bool(train.get(key)) for key in KEYS)


def check_compiled(train: Mapping[str, Value], *, world_size: int) -> None:
    """Check that the layers can be compiled where the trial runs.

    Raises: UserError.
    """
    if is_compiled(train) and world_size > 1:
        raise UserError(f"{KEY}: is not proved for the shards of several ranks; write one rank, or remove it")


@contextmanager
def compiled_layers(base: torch.nn.Module, train: Mapping[str, Value]) -> Iterator[None]:
    """A context in which the layers of the base model are compiled, if the `train` section says so.

    Raises: UserError where the model has no repeated layers, they are sharded, or torch cannot compile them.
    """
    if not is_compiled(train):
        yield
        return
    import torch._dynamo
    import torch._inductor.config as inductor

    layers = transformer_layers(base)
    if not layers:
        raise UserError(f"{KEY}: the model names no repeated layers (_no_split_modules); remove it")
    if any(isinstance(layer, FSDPModule) for layer in layers):
        raise UserError(f"{KEY}: is not proved for weights that fully_shard holds; remove it")
    backend = cast("str | None", train.get("torch_compile_backend")) or "inductor"
    mode = cast("str | None", train.get("torch_compile_mode"))
    try:
        for layer in layers:
            layer.compile(backend=backend, mode=mode)
        with inductor.patch(
            fallback_random=True, compile_threads=1
        ):  # a pool of processes would outlive the trial
            yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{KEY}: torch cannot compile the model with backend {backend} ({reason}); remove it"
        ) from error
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
        torch._dynamo.reset()

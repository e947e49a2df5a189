"""The logits of the counted positions only: a language model's output layer is applied to no other position.

The output layer of a small model is a fifth of its arithmetic, and its logits are the largest tensor of a step; prompts
and padding, which no loss counts, are often more than half of the positions. Unlike `logits_to_keep` of transformers,
which takes one range for all rows, the positions differ by row. A part of the first batch is computed both ways, once
a process for each kind of model: whether single positions will do depends on the model's code, not on its weights.

Shape suffixes: B batch, T tokens, H hidden size, N counted positions, V vocabulary or classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch

from hpotune.finetune.training.pass_limit import is_sharded

ROUNDING = 64
"""Allowed difference of the two computations, in roundings of the largest logit."""
CHECKED_ROWS, CHECKED_TOKENS = 2, 32
"""The part of the first batch that is computed both ways; rows are padded on the right."""
Kind = tuple[object, ...]
"""What the two computations depend on: classes, configuration, dtype, sharding."""
_applies: dict[Kind, bool] = {}
"""Kind of model -> whether logits of the counted positions alone were equal to those of all."""


def counted_logits(
    model: torch.nn.Module,
    ids_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    positions_N: torch.Tensor,
    *,
    position_ids_BT: torch.Tensor | None = None,
) -> torch.Tensor:
    """logits_NV at positions of the flattened (B T); with N = 0 they still belong to the autograd graph.

    A model whose output layer cannot be given single positions (it is no module, or what follows it needs the shape)
    computes all logits, with the same result. `position_ids_BT`: the positions of packed rows. Every rank of a
    sharded model makes the same passes.
    """
    layer = model.get_output_embeddings()
    kind = _kind(model, layer)
    applies = _applies.get(kind)
    if applies is None:
        part = slice(CHECKED_ROWS), slice(CHECKED_TOKENS)
        applies = _is_equal(model, layer, ids_BT[part], mask_BT[part])
        if applies is not None:
            _applies[kind] = applies
    if not applies:
        return _all_logits(model, ids_BT, mask_BT, position_ids_BT).flatten(0, 1).index_select(0, positions_N)
    with _selected(layer, positions_N):
        return cast("torch.Tensor", _all_logits(model, ids_BT, mask_BT, position_ids_BT)[0])


def _kind(model: torch.nn.Module, layer: torch.nn.Module | None) -> Kind:
    """Every module counts: an adapter, a hook or a library's patch of the forward pass makes another kind."""
    found = [] if layer is None else [*layer._forward_hooks.values(), *layer._forward_pre_hooks.values()]
    hooks = tuple(getattr(hook, "__qualname__", repr(hook)) for hook in found)
    dtype = next((one.dtype for one in model.parameters()), None)
    classes = frozenset(type(module) for module in model.modules())
    patched = "forward" in vars(model)
    return type(layer), hooks, patched, dtype, is_sharded(model), classes, repr(model.config)


def _all_logits(
    model: torch.nn.Module,
    ids_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    position_ids_BT: torch.Tensor | None = None,
) -> torch.Tensor:
    """logits_BTV. Packed rows go without a mask and without a cache: only then positions keep them apart."""
    found: torch.Tensor
    if position_ids_BT is None:
        found = model(input_ids=ids_BT, attention_mask=mask_BT).logits
    else:
        found = model(input_ids=ids_BT, position_ids=position_ids_BT, use_cache=False).logits
    return found


@contextmanager
def _selected(layer: torch.nn.Module, positions_N: torch.Tensor) -> Iterator[None]:
    """The output layer gets hidden_1NH instead of hidden_BTH meanwhile."""

    def select(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden_BTH, *others = inputs
        return hidden_BTH.flatten(0, -2).index_select(0, positions_N).unsqueeze(0), *others

    handle = layer.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _is_equal(
    model: torch.nn.Module, layer: torch.nn.Module | None, ids_BT: torch.Tensor, mask_BT: torch.Tensor
) -> bool | None:
    """Whether every second token has the same logits both ways, without dropout; None: these say nothing."""
    if layer is None:
        return False
    positions_N = mask_BT.flatten().nonzero().flatten()[::2]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            every = _all_logits(model, ids_BT, mask_BT).flatten(0, 1).index_select(0, positions_N)
            with _selected(layer, positions_N):
                some = _all_logits(model, ids_BT, mask_BT)
    except (TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return False
    finally:
        model.train(was_training)
    if some.shape != (1, *every.shape):
        return False
    largest = float(every.abs().max())
    if not math.isfinite(largest):
        return None
    rounding = ROUNDING * torch.finfo(every.dtype).eps * largest
    return bool(torch.allclose(some[0], every, rtol=0.0, atol=rounding))

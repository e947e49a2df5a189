"""The logits of the counted positions only: a language model's output layer is applied to no other position.

The output layer of a small model is a fifth of its arithmetic, and its logits are the largest tensor of a step; prompts
and padding, which no loss counts, are often more than half of the positions. Unlike `logits_to_keep` of transformers,
which takes one range for all rows, the positions differ by row. A part of a model's first batch is computed both ways.

Shape suffixes: B batch, T tokens, H hidden size, N counted positions, V vocabulary or classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from weakref import WeakKeyDictionary

import torch

ROUNDING = 64
"""Allowed difference of the two computations, in roundings of the largest logit."""
CHECKED_ROWS, CHECKED_TOKENS = 2, 32
"""The part of the first batch that is computed both ways; rows are padded on the right."""
_applies: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()
"""Output layer -> whether logits of the counted positions alone were equal to those of all."""


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
    if layer not in _applies:
        _applies[layer] = _is_equal(
            model, layer, ids_BT[:CHECKED_ROWS, :CHECKED_TOKENS], mask_BT[:CHECKED_ROWS, :CHECKED_TOKENS]
        )
    if not _applies[layer]:
        return _all_logits(model, ids_BT, mask_BT, position_ids_BT).flatten(0, 1).index_select(0, positions_N)
    with _selected(layer, positions_N):
        return cast("torch.Tensor", _all_logits(model, ids_BT, mask_BT, position_ids_BT)[0])


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
) -> bool:
    """Whether every second token has the same logits both ways, without dropout."""
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
        return False  # nothing to compare by
    rounding = ROUNDING * torch.finfo(every.dtype).eps * largest
    return bool(torch.allclose(some[0], every, rtol=0.0, atol=rounding))

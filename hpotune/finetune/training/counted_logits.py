"""The logits of the counted positions only: a language model's output layer is applied to no other position.

The output layer of a small model is a fifth of its arithmetic, and its logits are the largest tensor of a step; prompts
and padding, which no loss counts, are often more than half of the positions. Unlike `logits_to_keep` of transformers,
which takes one range for all rows, the positions differ by row. A part of the first batch is computed both ways, and by
the layer alone, as `chunked_loss` does, once a process for each kind of model: whether single positions will do depends
on the model's code, not on its weights.

Shape suffixes: B batch, T tokens, H hidden size, N counted positions, V vocabulary or classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, cast
from weakref import WeakKeyDictionary

import torch

from hpotune.finetune.training.pass_limit import is_sharded

ROUNDING = 64
"""Allowed difference of the two computations, in roundings of the largest logit."""
CHECKED_ROWS, CHECKED_TOKENS = 2, 32
"""The part of the first batch that is computed both ways; rows are padded on the right."""
Form = Literal["all", "counted", "separate"]
"""How logits are computed. all: for every position, since another way gave other logits or none. counted: the layer is
given the counted positions only. separate: so, and `separate_logits` gives the same."""
Kind = tuple[object, ...]
"""What these ways depend on: classes, configuration, dtype, sharding."""
_forms: dict[Kind, Form] = {}
"""Kind of model -> what was found on a part of the first batch."""
_of_layer: WeakKeyDictionary[torch.nn.Module, tuple[int, Form]] = WeakKeyDictionary()
"""Output layer -> its hooks, and the form of its model's kind: to name a kind takes 5 ms for a model of 30 layers."""


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
    if logit_form(model, ids_BT, mask_BT) == "all":
        return all_logits(model, ids_BT, mask_BT, position_ids_BT).flatten(0, 1).index_select(0, positions_N)
    with _selected(model.get_output_embeddings(), positions_N):
        return cast("torch.Tensor", all_logits(model, ids_BT, mask_BT, position_ids_BT)[0])


def logit_form(model: torch.nn.Module, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> Form:
    """How this model's logits can be computed, found with its first batch."""
    layer = model.get_output_embeddings()
    if layer is None:
        return "all"
    hooks = len(layer._forward_hooks) + len(layer._forward_pre_hooks)
    seen = _of_layer.get(layer)
    if seen is not None and seen[0] == hooks:
        return seen[1]
    kind = _kind(model, layer)
    if (known := _forms.get(kind)) is not None:
        _of_layer[layer] = (hooks, known)
        return known
    ids, mask = (every[:CHECKED_ROWS, :CHECKED_TOKENS] for every in (ids_BT, mask_BT))
    found = _compared(model, layer, ids, mask)
    if found is not None:
        _forms[kind] = found
        _of_layer[layer] = (hooks, found)
    return found or "all"


def _kind(model: torch.nn.Module, layer: torch.nn.Module) -> Kind:
    """Every module counts: an adapter, a hook or a library's patch of the forward pass makes another kind."""
    found = [*layer._forward_hooks.values(), *layer._forward_pre_hooks.values()]
    hooks = tuple(getattr(hook, "__qualname__", repr(hook)) for hook in found)
    dtype = next((one.dtype for one in model.parameters()), None)
    classes = frozenset(type(module) for module in model.modules())
    patched = "forward" in vars(model)
    return type(layer), hooks, patched, dtype, is_sharded(model), classes, repr(model.config)


def all_logits(
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


def separate_logits(model: torch.nn.Module, hidden_NH: torch.Tensor) -> torch.Tensor:
    """logits_NV by the output layer alone, without its hooks, and what the model's config says that follows it.

    That is a factor (Cohere), a divisor (Granite) or a limit (Gemma 2), as transformers' models apply them.
    """
    config = model.config.get_text_config()
    logits_NV: torch.Tensor = model.get_output_embeddings().forward(hidden_NH)
    if (factor := getattr(config, "logit_scale", None)) is not None:
        logits_NV = logits_NV * factor
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits_NV = logits_NV / divisor
    if (limit := getattr(config, "final_logit_softcapping", None)) is not None:
        logits_NV = torch.tanh(logits_NV / limit) * limit
    return logits_NV


@contextmanager
def before_layer(layer: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """The output layer gets what `change` makes of its hidden states meanwhile."""

    def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return change(inputs[0]), *inputs[1:]

    handle = layer.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _selected(layer: torch.nn.Module, positions_N: torch.Tensor) -> Iterator[None]:
    """The output layer gets hidden_1NH instead of hidden_BTH meanwhile."""
    with before_layer(layer, lambda hidden: hidden.flatten(0, -2).index_select(0, positions_N).unsqueeze(0)):
        yield


def _compared(
    model: torch.nn.Module, layer: torch.nn.Module, ids_BT: torch.Tensor, mask_BT: torch.Tensor
) -> Form | None:
    """Which ways give every second token the same logits, without dropout; None: these say nothing."""
    positions_N = mask_BT.flatten().nonzero().flatten()[::2]
    was_training, alone = model.training, list[torch.Tensor]()

    def select(hidden_BTH: torch.Tensor) -> torch.Tensor:
        hidden_NH = hidden_BTH.flatten(0, -2).index_select(0, positions_N)
        with suppress(
            TypeError, ValueError, AttributeError, ArithmeticError
        ):  # it may have other arguments or other factors
            alone.append(separate_logits(model, hidden_NH))
        return hidden_NH.unsqueeze(0)

    model.eval()
    try:
        with torch.no_grad():
            every = all_logits(model, ids_BT, mask_BT).flatten(0, 1).index_select(0, positions_N)
            with before_layer(layer, select):
                some = all_logits(model, ids_BT, mask_BT)
    except (TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return "all"
    finally:
        model.train(was_training)
    if some.shape == (1, *every.shape) and not every.abs().max().isfinite():
        return None
    if some.shape != (1, *every.shape) or not _is_equal(some[0], every):
        return "all"
    return "separate" if alone and _is_equal(alone[0], every) else "counted"


def _is_equal(some: torch.Tensor, every: torch.Tensor) -> bool:
    """Whether the logits are equal but for rounding."""
    if some.shape != every.shape or some.dtype != every.dtype:
        return False
    rounding = ROUNDING * torch.finfo(every.dtype).eps * float(every.abs().max())
    return bool(torch.allclose(some, every, rtol=0.0, atol=rounding))

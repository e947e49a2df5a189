"""The cross entropy of many counted positions of a large vocabulary, computed in chunks of positions.

The logits of a step, with the two tensors of their size that its backward pass has, can be most of its memory: 4,000
counted positions of a vocabulary of 128,000 are 2 GB in float32, three times. Here each chunk's gradient by the hidden
states is computed at once, so that no more than one chunk's logits exist; the products are those of the whole, none is
computed twice. It needs an output layer that is frozen, and a model that adds nothing to its logits but what
`counted_logits.separate_logits` knows; a part of a model's first batch is compared.

Shape suffixes: B batch, T tokens, H hidden size, N counted positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.nn import functional

from hpotune.config.memory.memory_estimate import chunk_positions
from hpotune.finetune.training.counted_logits import all_logits, before_layer, logit_form, separate_logits
from hpotune.finetune.training.pass_limit import logit_width

HALF_PRECISION = (torch.bfloat16, torch.float16)


def chunk_size(
    model: torch.nn.Module, ids_BT: torch.Tensor, mask_BT: torch.Tensor, *, positions: int
) -> int | None:
    """The positions of a chunk; None: the loss of so many positions is computed at once.

    Every rank of a sharded model calls this for its first batch, which makes a pass.
    """
    if positions <= (size := chunk_positions(logit_width(model))):
        return None
    layer = model.get_output_embeddings()
    if layer is None or not _is_fixed(layer) or logit_form(model, ids_BT, mask_BT) != "separate":
        return None
    return size


def _is_fixed(layer: torch.nn.Module) -> bool:
    """Whether the layer is frozen and draws no numbers: a chunk would draw others."""
    dropouts = any(isinstance(one, torch.nn.Dropout) and one.p > 0 for one in layer.modules())
    return not dropouts and not any(parameter.requires_grad for parameter in layer.parameters())


def chunked_loss(
    model: torch.nn.Module,
    ids_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    positions_N: torch.Tensor,
    targets_N: torch.Tensor,
    *,
    size: int,
    position_ids_BT: torch.Tensor | None = None,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """The sum of the cross entropies of the positions, in nats, with its gradient; a scalar tensor."""

    def loss_of(hidden_NH: torch.Tensor, chunk: slice) -> torch.Tensor:
        logits_NV = _logits(model, hidden_NH)
        return functional.cross_entropy(
            logits_NV, targets_N[chunk], reduction="sum", label_smoothing=smoothing
        )

    def compute(hidden_NH: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", _ChunkedSum.apply(hidden_NH, loss_of, size))

    total, rest = _at_layer(model, ids_BT, mask_BT, positions_N, position_ids_BT, compute)
    return total + rest.sum()  # the sum of nothing: fully_shard waits for a gradient of the model's output


def chunked_sums(
    model: torch.nn.Module,
    ids_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    positions_N: torch.Tensor,
    targets_N: torch.Tensor,
    *,
    size: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of the cross entropies of the positions, and how many are predicted right; without a gradient."""

    def compute(hidden_NH: torch.Tensor) -> torch.Tensor:
        found = hidden_NH.new_zeros(2, dtype=torch.float64)
        for chunk in _chunks(len(hidden_NH), size):
            logits_NV, wanted_N = _logits(model, hidden_NH[chunk]), targets_N[chunk]
            loss = functional.cross_entropy(logits_NV, wanted_N, reduction="sum")
            found += torch.stack([loss.double(), (logits_NV.argmax(-1) == wanted_N).sum().double()])
        return found

    total, _ = _at_layer(model, ids_BT, mask_BT, positions_N, None, compute)
    return total[0], total[1]


def _at_layer(
    model: torch.nn.Module,
    ids_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    positions_N: torch.Tensor,
    position_ids_BT: torch.Tensor | None,
    compute: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `compute` makes of the hidden states that the output layer would get, and the logits of no position.

    It is called inside the model's forward pass: there the weights of a sharded layer are gathered.
    """
    layer, found = model.get_output_embeddings(), list[torch.Tensor]()

    def take(hidden_BTH: torch.Tensor) -> torch.Tensor:
        hidden_NH = hidden_BTH.flatten(0, -2).index_select(0, positions_N)
        found.append(compute(hidden_NH))
        return hidden_NH[:0].unsqueeze(0)

    with before_layer(layer, take):
        rest = all_logits(model, ids_BT, mask_BT, position_ids_BT)
    return found[0], rest


def _logits(model: torch.nn.Module, hidden_NH: torch.Tensor) -> torch.Tensor:
    """logits_NV of a chunk, as `loss.forward` returns them."""
    logits_NV = separate_logits(model, hidden_NH)
    return logits_NV.float() if logits_NV.dtype in HALF_PRECISION else logits_NV


def _chunks(positions: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, positions, size)]


class _ChunkedSum(torch.autograd.Function):  # type: ignore[misc]
    """The sum of a loss over chunks of hidden states, whose gradient is computed with it."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context
        hidden_NH: torch.Tensor,
        loss_of: Callable[[torch.Tensor, slice], torch.Tensor],
        size: int,
    ) -> torch.Tensor:
        """The sum; a scalar tensor."""
        gradient_NH, losses = torch.empty_like(hidden_NH), list[torch.Tensor]()
        for chunk in _chunks(len(hidden_NH), size):
            with torch.enable_grad():
                own_NH = hidden_NH[chunk].detach().requires_grad_()
                loss = loss_of(own_NH, chunk)
                (gradient_NH[chunk],) = torch.autograd.grad(loss, own_NH)
            losses.append(loss.detach())
            del loss  # and with it this chunk's logits, before the next one's exist
        ctx.save_for_backward(gradient_NH)
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # noqa: ANN401 - torch's context
        """The kept gradient, times that of the sum."""
        (gradient_NH,) = ctx.saved_tensors
        return gradient_NH * outputs[0].to(gradient_NH.dtype), None, None

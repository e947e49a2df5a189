"""The memory and the disk space of a trial that trains all weights (train.method: full): bytes on one rank.

Weights, gradients and the optimizer's state have at least 4 bytes a number and are sharded over the ranks; layers are
gathered in the dtype of the computation, the sum of a layer's gradients in that of the weights. An upper estimate; the
activations are those of an adapter on every linear layer, without its own matrices: then each layer keeps its inputs.
"""

from __future__ import annotations

from typing import Literal

from hpotune.config.memory.memory_estimate import (
    WORKSPACE,
    AdapterShape,
    Machine,
    MemoryEstimate,
    TrainingPass,
    activation_bytes,
    logit_bytes,
    scoring_bytes,
    weight_bytes_of_rank,
)
from hpotune.config.memory.model_shape import ModelShape, UnknownMemory


def estimate_full(
    shape: ModelShape,
    training: TrainingPass,
    *,
    width: Literal[2, 4, 8],
    state: int,
    machine: Machine,
    classes: int | None = None,
    attention: str | None = None,
) -> MemoryEstimate:
    """The memory of a trial, with the arguments of `estimate_memory`.

    Raises: UnknownMemory for an attention whose memory is not estimated.
    """
    if attention == "eager":
        raise UnknownMemory("model.attn_implementation is eager")
    wide, ranks = max(width, 4), machine.ranks
    own = -(-shape.parameters // ranks)
    weights = gradients = own * wide
    optimizer = own * state * wide // 4
    parted = (
        ranks > 1 or wide != width
    )  # fully_shard gathers a layer, and the next one, and sums in another tensor
    layer, outer = shape.layer_parameters, shape.outer_parameters
    gathered = (outer + 2 * layer) * width if parted else 0
    summed = max(outer, layer) * (width + wide) if parted else 0
    every = AdapterShape(rank=0, modules=frozenset(shape.linear))
    kept, one_layer, last = activation_bytes(shape, every, training, width=width, gpu=machine.gpu)
    # a norm whose weight is trained keeps what it multiplies
    normed = shape.norms * shape.hidden + (shape.queries + shape.keys if shape.head_norms else 0)
    normed *= training.rows * training.tokens * width
    kept += normed * (0 if training.checkpointing else shape.layers)
    one_layer += normed * training.checkpointing
    logits = logit_bytes(shape, training, width=width, classes=classes)
    earlier = gradients if training.accumulates else 0
    fixed = weights + optimizer + (WORKSPACE if machine.gpu else 0)
    moments = (
        gathered + kept + earlier + logits + outer * wide,  # the output layer has its gradient already
        gathered + kept + gradients + one_layer + summed,
        gathered + gradients + one_layer + last + summed,
        2 * gradients,  # some optimizers compute a step of all weights at once
    )
    return MemoryEstimate(
        weights=weights,
        adapter=0,
        optimizer=optimizer,
        gradients=gradients,
        activations=kept + one_layer,
        logits=logits,
        peak=fixed + max(moments),
        scoring=weight_bytes_of_rank(shape, width=width, ranks=ranks)
        + scoring_bytes(shape, training, width=width, classes=classes),
    )

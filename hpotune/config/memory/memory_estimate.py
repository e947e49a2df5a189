"""The memory of a training step, from the shape of the model and the values of a point: bytes of tensors on one rank.

An upper estimate for LoRA on a frozen decoder, as torch 2.13, transformers 5.23 and peft 0.21 keep tensors for the
backward pass; scripts/bench/memory.py compares it with measured peaks. Four moments of a step are compared, since their
largest tensors never exist together: the loss, the backward pass of the last layer, that of the first layer (when all
gradients exist), and the optimizer's step.

Suffixes: _n bytes for each token of a pass, no suffix bytes. h hidden size, f feed-forward size, r rank of the adapter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from hpotune.config.memory.model_shape import ModelShape, UnknownMemory
from hpotune.config.yaml_source import Value

GIB = 2**30
WORKSPACE = 64 * 2**20
"""Of the matrix products of a GPU, which torch allocates as a tensor."""
SCORED_LOGITS = 2**23
"""Logits of a scoring pass that is always allowed (finetune/training/pass_limit.py)."""
CHUNK_LOGITS = 2**25
"""Logits of a chunk of the loss (finetune/training/chunked_loss.py): 128 MiB in float32."""
STATE_BYTES: Mapping[str, int] = {"sgd": 0, "lion": 4, "adamw": 8, "rmsprop": 8, "adagrad": 4}
"""Start of an optimizer's name -> bytes of state for each trained weight; the most of all for another one."""
MOST_STATE = 12
UNFIT_LORA = ("use_dora", "modules_to_save", "target_parameters", "layer_replication", "trainable_token_indices",
              "rank_pattern", "layers_to_transform", "use_bdlora", "alora_invocation_tokens")  # fmt: skip
"""Keys of `lora` whose memory is not estimated."""
_ATTENTION = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPass:
    """What one micro-batch and its optimizer hold."""

    rows: int
    """Rows of the micro-batch."""
    tokens: int
    """Of its longest row."""
    counted: int
    """Positions of all its rows that the loss counts."""
    accumulates: bool = False
    """Whether a step has several micro-batches, so that gradients exist during a pass."""
    checkpointing: bool = False
    """Whether activations are computed again in the backward pass."""
    smoothing: bool = False
    """Whether the labels are smoothed."""
    chunked: bool = False
    """Whether the loss of many positions is computed in chunks, of which one's logits exist at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterShape:
    """A LoRA adapter, the same in every layer."""

    rank: int
    modules: frozenset[str]
    """Names of the linear modules of a layer that have it."""
    dropout: bool = False

    def layer_parameters(self, shape: ModelShape) -> int:
        """Its weights in one layer."""
        return sum(self.rank * sum(shape.linear[name]) for name in self.modules)


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Where a trial trains."""

    gpu: bool
    ranks: int = 1
    """Ranks that the base model is sharded over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Bytes on one rank. The parts never exist all together: `peak` is the largest sum of those that do."""

    weights: int
    """Frozen weights of this rank, with those that are gathered from the others."""
    adapter: int
    """The adapter, its copy in half precision, and on a CPU its copy of before the training."""
    optimizer: int
    gradients: int
    activations: int
    """Kept for the backward pass, with the temporary tensors of one layer."""
    logits: int
    """With their gradients."""
    peak: int
    """Of a training step."""
    scoring: int
    """At most, of a pass of scoring; passes that do not fit are halved."""
    loss_chunk: int | None = None
    """Positions of a chunk of the loss; None: the loss of a pass is computed at once."""

    @property
    def largest(self) -> int:
        """The peak of the whole trial, bytes."""
        return max(self.peak, self.scoring)


def adapter_shape(lora: Mapping[str, Value], shape: ModelShape) -> AdapterShape:
    """The adapter of a `lora` section.

    Raises: UnknownMemory for keys and targets whose memory is not estimated.
    """
    for key in UNFIT_LORA:
        if lora.get(key):
            raise UnknownMemory(f"lora.{key} is set")
    rank, dropout = lora.get("r", 8), lora.get("lora_dropout", 0.0)
    if not isinstance(rank, int):
        raise UnknownMemory("lora.r is no number")
    return AdapterShape(
        rank=rank,
        modules=frozenset(_targets(lora, shape)),
        dropout=isinstance(dropout, float) and dropout > 0,
    )


def _targets(lora: Mapping[str, Value], shape: ModelShape) -> Iterator[str]:
    """The linear modules of a layer that get an adapter."""
    wanted = lora.get("target_modules") or "all-linear"
    excluded = lora.get("exclude_modules") or []
    if isinstance(excluded, str):
        raise UnknownMemory("lora.exclude_modules is a pattern")
    if isinstance(wanted, list):
        outside = [name for name in wanted if name not in shape.linear]
        if outside:
            raise UnknownMemory(
                f"lora.target_modules names {outside[0]}, which is no linear layer of a block"
            )
    for name in shape.linear:
        if isinstance(excluded, list) and name in excluded:
            continue
        part = "self_attn" if name in _ATTENTION else "mlp"
        full = f"model.layers.0.{part}.{name}"  # which a pattern has to match whole
        listed = isinstance(wanted, list) and name in wanted
        matched = isinstance(wanted, str) and re.fullmatch(wanted, full)
        if wanted == "all-linear" or listed or matched:
            yield name


def state_bytes(optim: str, *, momentum: bool) -> int:
    """Bytes of the optimizer's state for each trained weight."""
    if optim == "sgd":
        return 4 if momentum else 0
    return next((size for name, size in STATE_BYTES.items() if optim.startswith(name)), MOST_STATE)


def estimate_memory(
    shape: ModelShape,
    adapter: AdapterShape,
    training: TrainingPass,
    *,
    width: Literal[2, 4, 8],
    state: int,
    machine: Machine,
    classes: int | None = None,
    attention: str | None = None,
) -> MemoryEstimate:
    """The memory of a trial.

    `width`: bytes of a number of the base model. `state`: as `state_bytes`. `classes`: of a classification; None: a
    language model. `attention`: model.attn_implementation.
    Raises: UnknownMemory for an attention whose memory is not estimated.
    """
    if attention == "eager":
        raise UnknownMemory("model.attn_implementation is eager")
    wide = max(width, 4)  # of a weight of the adapter
    weights = weight_bytes_of_rank(shape, width=width, ranks=machine.ranks)
    trained = shape.layers * adapter.layer_parameters(shape)
    if classes is not None:  # the head is trained and saved whole
        trained += classes * shape.hidden
    copies = 1 if machine.gpu else 2  # a trial keeps its initial adapter on the CPU
    fixed = weights + trained * (copies * wide + state * wide // 4) + (WORKSPACE if machine.gpu else 0)
    halves = trained * width if width < 4 else 0
    gradients = trained * wide
    kept, one_layer, last = activation_bytes(shape, adapter, training, width=width, gpu=machine.gpu)
    one_layer += 2 * adapter.layer_parameters(shape) * wide
    logits, chunk = (
        logit_bytes(shape, training, width=width, classes=classes),
        chunk_positions(shape.vocabulary),
    )
    earlier = gradients if training.accumulates else 0
    halves_of_layer = halves // shape.layers
    halves_behind = halves_of_layer if training.checkpointing else halves  # in the backward pass
    moments = (
        halves + kept + earlier + logits * 5 // 6,  # the last gradient does not exist in the forward pass
        halves_behind + kept + earlier + logits,
        halves_behind + kept + earlier + one_layer,
        halves_of_layer + gradients + one_layer + last,
        2 * gradients,  # those of the parameters, and the vector that is reduced over the ranks
    )
    return MemoryEstimate(
        weights=weights,
        adapter=trained * copies * wide + halves,
        optimizer=trained * state * wide // 4,
        gradients=gradients,
        activations=kept + one_layer,
        logits=logits,
        peak=fixed + max(moments),
        scoring=weights + trained * wide + scoring_bytes(shape, training, width=width, classes=classes),
        loss_chunk=chunk if training.chunked and classes is None and training.counted > chunk else None,
    )


def activation_bytes(
    shape: ModelShape, adapter: AdapterShape, training: TrainingPass, *, width: int, gpu: bool
) -> tuple[int, int, int]:
    """Kept for the backward pass; temporary in one layer of it; kept of the layer that comes last there."""
    tokens = training.rows * training.tokens
    layer_n = _layer_tokens(shape, adapter, training, width=width, gpu=gpu)
    one_layer = tokens * _backward_tokens(shape, adapter, width=width)
    kept_n = shape.hidden * width if training.checkpointing else layer_n
    kept = tokens * (shape.layers * kept_n + shape.hidden * (4 + width) + 64 + training.tokens)
    if training.checkpointing:
        return kept, one_layer + tokens * layer_n, 0
    return kept, one_layer, tokens * layer_n


def weight_bytes_of_rank(shape: ModelShape, *, width: int, ranks: int) -> int:
    """Of one rank: all, or its shard with the layers that are gathered: two, and what is outside of the layers."""
    if ranks == 1:
        return shape.parameters * width
    gathered = shape.outer_parameters + 2 * shape.layer_parameters
    return -(-shape.parameters * width // ranks) + gathered * width


def _layer_tokens(
    shape: ModelShape, adapter: AdapterShape, training: TrainingPass, *, width: int, gpu: bool
) -> int:
    """Bytes that one layer keeps for the backward pass, for each token."""
    h, f, q = shape.hidden, shape.feed_forward, shape.queries
    masked = training.rows > 1 or shape.windowed  # rows of different lengths are padded
    # With a mask, transformers repeats keys and values for each head of the queries; a single head is only viewed so.
    pairs = 2 * (q if masked and shape.key_heads > 1 else shape.keys)
    if shape.fused and not masked:
        # the values are a part of the fused product, kept whole; a further q was measured
        pairs += 2 * q + shape.keys
    attention = width * (2 * q + pairs + (training.tokens if masked else 0)) + 4 * shape.heads
    norms = 4 * shape.norms * (h + 1) + (4 * (q + shape.keys) if shape.head_norms else 0)
    return attention + norms + 3 * f * width + _adapter_tokens(shape, adapter, width=width, gpu=gpu)


def _adapter_tokens(shape: ModelShape, adapter: AdapterShape, *, width: int, gpu: bool) -> int:
    """Bytes that the adapter of one layer keeps for each token: the inputs of its two matrices."""
    linear, inputs = shape.linear, {name: shape.linear[name][0] for name in adapter.modules}
    middle = len(inputs) * adapter.rank * width
    if width < 4 or adapter.dropout:  # peft casts the input of each module, and autocast casts it back
        kept = sum(inputs.values()) * width
    else:  # modules with the same input share it, and attention keeps that of o_proj
        shared = {_reader(name): linear[name][0] for name in adapter.modules if name != "o_proj"}
        kept = sum(shared.values()) * width
    mask = sum(inputs.values()) * (1 if gpu else max(width, 4)) if adapter.dropout else 0
    return kept + middle + mask


def _reader(name: str) -> str:
    """Which tensor of a layer a module reads."""
    return {"down_proj": "product", "gate_proj": "mlp", "up_proj": "mlp", "gate_up_proj": "mlp"}.get(
        name, "attention"
    )


def _backward_tokens(shape: ModelShape, adapter: AdapterShape, *, width: int) -> int:
    """Bytes of the temporary tensors of one layer's backward pass, for each token; measured on CPU."""
    h, f, q = shape.hidden, shape.feed_forward, shape.queries
    split = 2 * f if shape.fused else 0  # the gradients of gate and up are joined
    normed = 5 * 4 * q if shape.head_norms else 5 * width * q
    if width < 4:
        return max(20 * h, 6 * f + 11 * h + width * split, normed) + 8 * adapter.rank
    products = 2 * f + 12 * adapter.rank if "down_proj" in adapter.modules else 3 * f
    return max(width * (max(5 * h, products + split) + 40), normed) + 8 * adapter.rank


def logit_bytes(shape: ModelShape, training: TrainingPass, *, width: int, classes: int | None) -> int:
    """Bytes of the logits of the counted positions, in float32 (float64), with two gradients of their size."""
    positions, kept = training.counted, training.counted * shape.hidden * 4
    if training.chunked and classes is None and positions > (size := chunk_positions(shape.vocabulary)):
        positions, kept = size, kept + positions * shape.hidden * width  # the gradient by the hidden states
    numbers = positions * shape.vocabulary if classes is None else training.rows * classes
    return numbers * max(width, 4) * (5 if training.smoothing else 3) + kept


def chunk_positions(vocabulary: int) -> int:
    """Positions of a chunk of the loss."""
    return max(1, CHUNK_LOGITS // vocabulary)


def scoring_bytes(shape: ModelShape, training: TrainingPass, *, width: int, classes: int | None) -> int:
    """Bytes of a scoring pass, at most: its logits, their float32 copy and log-softmax, and one layer."""
    tokens = training.rows * training.tokens
    logits = max(SCORED_LOGITS, tokens * shape.vocabulary) if classes is None else training.rows * classes
    one_layer = tokens * (4 * shape.feed_forward + 6 * max(shape.hidden, shape.queries)) * max(width, 4)
    return logits * (width + 8 if width < 4 else 3 * width) + one_layer

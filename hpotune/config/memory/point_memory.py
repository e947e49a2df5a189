"""The memory of the trials of a study: at one point, at the largest point of the space, and what fits into a GPU."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from hpotune.config.library_values import AUTO_KEYS as AUTO_KEYS
from hpotune.config.load import Study
from hpotune.config.memory.full_estimate import estimate_full
from hpotune.config.memory.memory_estimate import (
    Machine,
    MemoryEstimate,
    TrainingPass,
    adapter_shape,
    estimate_memory,
    state_bytes,
)
from hpotune.config.memory.model_shape import ModelShape, UnknownMemory, read_shape
from hpotune.config.schema.study_config import ModelConfig, PointConfig
from hpotune.config.training_method import trains_whole
from hpotune.config.yaml_source import Value

AUTO = "auto"
CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")
"""Keys of `train` for it, the new name first."""
MICRO_BATCH = "per_device_train_batch_size"
DEFAULT_MICRO_BATCH = 8  # of transformers
AUTO_ALONE = "train.per_device_train_batch_size: auto needs global_batch_size, which this trial does not have"
MEMORY_FILE = "memory.json"
"""In a trial's folder: what it chose by its memory."""
WIDTHS: Mapping[str, Literal[2, 4, 8]] = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLengths:
    """The training rows, as far as memory depends on them."""

    longest: int
    """Tokens."""
    counted: tuple[int, ...]
    """Counted tokens of the rows that have the most, largest first; more rows have at most as many as the last one."""
    source: str = "data.max_length, all tokens counted"
    """How they are known, for people."""

    def counted_in(self, rows: int) -> int:
        """The most tokens that the loss counts in so many rows."""
        found = sum(self.counted[:rows])
        return found + max(0, rows - len(self.counted)) * (self.counted[-1] if self.counted else self.longest)


def longest_rows(point: PointConfig) -> RowLengths:
    """The most that the rows can be, where they have not been read."""
    assert point.data is not None, "only fine-tuning is estimated"
    return RowLengths(longest=point.data.max_length, counted=(point.data.max_length,))


def counted_lengths(targets: Iterable[Sequence[int]], *, ignored: int, most: int = 64) -> tuple[int, ...]:
    """`RowLengths.counted` of rows with these targets."""
    return tuple(heapq.nlargest(most, (sum(target != ignored for target in row[1:]) or 1 for row in targets)))


def global_batch(train: Mapping[str, Value], *, ranks: int) -> int:
    """Rows of an optimizer step over all ranks."""
    given = train.get("global_batch_size")
    if isinstance(given, (int, float)):
        return int(given)
    each = train.get(MICRO_BATCH, DEFAULT_MICRO_BATCH)
    accumulated = train.get("gradient_accumulation_steps", 1)
    if each == AUTO:
        raise UnknownMemory(AUTO_ALONE)
    assert isinstance(each, int), "validated with the study file"
    assert isinstance(accumulated, int), "validated with the study file"
    return each * accumulated * ranks


def checkpointing_of(train: Mapping[str, Value]) -> bool | Literal["auto"]:
    """Whether activations are computed again: as the section says, by the new name or the old one."""
    given = next((train[key] for key in CHECKPOINTING if train.get(key) is not None), False)
    return "auto" if given == AUTO else bool(given)


def micro_batches(train: Mapping[str, Value], *, ranks: int) -> list[int]:
    """The micro-batches that a trial may have, largest first: one, or with `auto` the powers of two and the whole."""
    most = math.ceil(global_batch(train, ranks=ranks) / ranks)
    given = train.get(MICRO_BATCH, DEFAULT_MICRO_BATCH)
    if given != AUTO:
        return [min(cast(int, given), most)]
    powers = [2**k for k in range(most.bit_length()) if 2**k <= most]
    return sorted({*powers, most}, reverse=True)


def point_memory(
    point: PointConfig,
    shape: ModelShape,
    lengths: RowLengths,
    *,
    machine: Machine,
    micro_batch: int,
    checkpointing: bool,
) -> MemoryEstimate:
    """The memory of a trial at this point.

    Raises: UnknownMemory for settings whose memory is not estimated.
    """
    assert point.model is not None, "only fine-tuning is estimated"
    assert point.data is not None, "only fine-tuning is estimated"
    train, longest = point.train, min(lengths.longest, point.data.max_length)
    own = math.ceil(global_batch(train, ranks=machine.ranks) / machine.ranks)
    if train.get("neftune_noise_alpha") is not None:
        raise UnknownMemory("train.neftune_noise_alpha is set")
    if train.get("packing"):  # a sequence may be full of rows of which every token is counted
        lengths = replace(lengths, counted=(longest,))
    if point.model.quantization is not None:
        raise UnknownMemory("model.quantization is set")
    training = TrainingPass(
        rows=micro_batch,
        tokens=longest,
        counted=min(lengths.counted_in(micro_batch), micro_batch * longest),
        accumulates=micro_batch < own,
        checkpointing=checkpointing,
        smoothing=bool(train.get("label_smoothing_factor")),
        # a layer that is trained too needs all logits at once
        chunked=train.get("chunked_loss") is not False and not trains_whole(train),
    )
    classifies = point.model.task != "causal_lm"
    width, state = weight_bytes(point.model, gpu=machine.gpu), optimizer_bytes(train)
    classes, attention = (
        (point.model.num_labels or 2) if classifies else None,
        point.model.attn_implementation,
    )
    if trains_whole(train):
        return estimate_full(
            shape, training, width=width, state=state, machine=machine, classes=classes, attention=attention
        )
    adapter = adapter_shape(point.lora, shape)
    return estimate_memory(
        shape,
        adapter,
        training,
        width=width,
        state=state,
        machine=machine,
        classes=classes,
        attention=attention,
    )


def optimizer_bytes(train: Mapping[str, Value]) -> int:
    """Bytes of the optimizer's state for each trained weight."""
    return state_bytes(str(train.get("optim", "adamw_torch")), momentum=bool(train.get("sgd_momentum")))


def weight_bytes(model: ModelConfig, *, gpu: bool) -> Literal[2, 4, 8]:
    """Bytes of a number of the frozen weights."""
    return (2 if gpu else 4) if model.dtype == "auto" else WIDTHS[model.dtype]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenMemory:
    """How a trial trains, and the memory for it."""

    micro_batch: int
    checkpointing: bool
    estimate: MemoryEstimate


def choose_memory(
    point: PointConfig,
    shape: ModelShape,
    lengths: RowLengths,
    *,
    machine: Machine,
    available: float,
    ratio: float = 1.0,
) -> ChosenMemory:
    """The largest micro-batch that fits into `available` bytes, without checkpointing before with it.

    Where nothing fits, it is the choice that needs the least. What the file fixes stays. `ratio`: measured peaks of
    earlier trials, divided by their estimates. Raises: UnknownMemory.
    """
    given, sizes = checkpointing_of(point.train), micro_batches(point.train, ranks=machine.ranks)
    found = None
    for checkpointing in [False, True] if given == AUTO else [given is True]:
        for size in sizes:
            estimate = point_memory(
                point, shape, lengths, machine=machine, micro_batch=size, checkpointing=checkpointing
            )
            found = ChosenMemory(micro_batch=size, checkpointing=checkpointing, estimate=estimate)
            if estimate.peak * ratio <= available:
                return found
    assert found is not None, "there is at least one micro-batch"
    return found


def largest_point(
    study: Study, lengths: Callable[[PointConfig], RowLengths], *, machine: Machine
) -> tuple[PointConfig, ChosenMemory]:
    """The point of the space that needs the most memory, and that memory with the most economical settings.

    Each range takes the end that needs more, for itself: a bound, also where a constraint forbids their combination.
    Raises: UnknownMemory where the memory at a point is not estimated.
    """

    def needed(drawn: Mapping[str, Value]) -> tuple[float, PointConfig, ChosenMemory] | None:
        try:
            point = study.point(drawn)
        except ValueError:
            return None  # the search does not draw it either
        assert point.model is not None, "only fine-tuning is estimated"
        shape = read_shape(point.model.path, revision=point.model.revision)
        found = choose_memory(point, shape, lengths(point), machine=machine, available=0.0)
        return found.estimate.peak, point, found

    drawn: dict[str, Value] = {r.name: r.corners[0] for r in study.space.searched}
    for r in study.space.searched:
        if r.where[0] not in ("model", "data", "lora", "train"):
            continue
        at = [
            (one[0], index)
            for index, corner in enumerate(r.corners)
            if (one := needed(drawn | {r.name: corner}))
        ]
        if at:
            drawn[r.name] = r.corners[max(at, key=lambda pair: (pair[0], -pair[1]))[1]]
    found = needed(drawn)
    if found is None:
        raise UnknownMemory("the largest values of the ranges give no valid point")
    return found[1], found[2]

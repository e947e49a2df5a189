"""Losses as sums over positions, so that the mean is the same for any split of the rows over ranks and batches.

Shape suffixes: B batch, T tokens, N counted positions, V vocabulary or classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.training.chunked_loss import (
    HALF_PRECISION,
    chunk_size,
    chunked_loss,
    chunked_sums,
)
from hpotune.finetune.training.counted_logits import counted_logits
from hpotune.finetune.training.pass_limit import PassLimit, is_sharded, split_rows, without_out_of_memory

IGNORED = -100  # torch's and transformers' target of a position that the loss does not count


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One training row as token ids."""

    ids: list[int]
    targets: list[int]
    """One per token (IGNORED: not counted), or the single class of the row; [0] where one of the next two is given."""
    classes: tuple[int, ...] | None = None
    """The classes of a row that may have several (multi_label_classification); else None."""
    number: float | None = None
    """What a regression predicts; else None."""


@runtime_checkable
class KnowsLengths(Protocol):
    """Rows that know their lengths without being read."""

    @property
    def lengths(self) -> NDArray[np.int32]:
        """The number of tokens of each row."""


def row_lengths(rows: Sequence[Row]) -> Sequence[int]:
    """The number of tokens of each row."""
    return rows.lengths.tolist() if isinstance(rows, KnowsLengths) else [len(row.ids) for row in rows]


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows, padded on the right, or sequences of packed rows."""

    ids_BT: torch.Tensor
    mask_BT: torch.Tensor
    positions_N: torch.Tensor
    """Where the logits of the counted targets are: positions of the flattened (B T), or rows of a classification."""
    targets_N: torch.Tensor
    of_tokens: bool
    """Whether targets are tokens; False: classes of rows."""
    classes_2P: torch.Tensor | None = None
    """Row and class of each class that rows have, of multi_label_classification; P: their number."""
    numbers_N: torch.Tensor | None = None
    """What a regression predicts."""
    position_ids_BT: torch.Tensor | None = None
    """The position of each token in its own row, by which packed rows are kept apart; None: rows are not packed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanLoss:
    """Means over the rows of all ranks."""

    loss: float
    """Mean cross entropy in nats."""
    accuracy: float
    """Share of the counted tokens, or rows of a classification, that are predicted right."""


def collate(rows: Sequence[Row], *, pad_id: int, device: torch.device, ignore_all: bool = False) -> Batch:
    """The rows as one batch; `ignore_all`: its loss counts no position (for a rank that only joins a collective)."""
    length = max(len(row.ids) for row in rows)
    ids = [row.ids + [pad_id] * (length - len(row.ids)) for row in rows]
    mask = [[1] * len(row.ids) + [0] * (length - len(row.ids)) for row in rows]
    of_tokens = len(rows[0].targets) != 1
    counted = [] if ignore_all else [*_counted(rows, length=length, of_tokens=of_tokens)]
    labelled = [] if ignore_all else rows
    numbers_of_rows = [number for number, row in enumerate(labelled) for _ in row.classes or ()]
    classes = [one for row in labelled for one in row.classes or ()]
    numbers = torch.tensor([row.number for row in labelled if row.number is not None], dtype=torch.float64)
    return Batch(
        ids_BT=on_device(ids, device),
        mask_BT=on_device(mask, device),
        positions_N=on_device([position for position, _ in counted], device),
        targets_N=on_device([target for _, target in counted], device),
        of_tokens=of_tokens,
        classes_2P=None if rows[0].classes is None else on_device([numbers_of_rows, classes], device),
        numbers_N=None if rows[0].number is None else numbers.to(device),
    )


def _counted(rows: Sequence[Row], *, length: int, of_tokens: bool) -> Iterator[tuple[int, int]]:
    """Position and target of each counted token (the position before it predicts it), or of each row."""
    for number, row in enumerate(rows):
        if not of_tokens:
            yield number, row.targets[0]
            continue
        for position, target in enumerate(row.targets[1:], start=number * length):
            if target != IGNORED:
                yield position, target


def on_device(values: Sequence[int] | Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """The int64 tensor; a copy to a GPU does not wait for what the GPU is doing."""
    found = torch.tensor(values, dtype=torch.long)
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found.to(device)


def autocast(model: torch.nn.Module, device: torch.device) -> AbstractContextManager[None]:
    """A context in which a half-precision base model has its adapter computed in half precision too.

    Without it peft computes the adapter's products in float32, on an A100 at a sixteenth of the speed. A model of which
    all weights are trained needs none: fully_shard gives it weights of the right dtype.
    """
    dtype = next((p.dtype for p in model.parameters() if not p.requires_grad), torch.float32)
    context: AbstractContextManager[None] = torch.autocast(
        device.type, dtype=dtype, enabled=dtype in HALF_PRECISION
    )
    return context


def forward(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """logits_NV of the counted positions; with N = 0 they still belong to the autograd graph."""
    if batch.of_tokens:
        logits_NV = counted_logits(
            model, batch.ids_BT, batch.mask_BT, batch.positions_N, position_ids_BT=batch.position_ids_BT
        )
    else:
        logits = model(input_ids=batch.ids_BT, attention_mask=batch.mask_BT).logits
        logits_NV = logits.index_select(0, batch.positions_N)
    return logits_NV.float() if logits_NV.dtype in HALF_PRECISION else logits_NV


def summed_loss(logits_NV: torch.Tensor, targets_N: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
    """The sum of the cross entropies of the N positions, in nats; a scalar tensor."""
    return functional.cross_entropy(logits_NV, targets_N, reduction="sum", label_smoothing=smoothing)


def batch_loss(logits_NV: torch.Tensor, batch: Batch, *, smoothing: float = 0.0) -> torch.Tensor:
    """The sum of the losses of the batch's positions or rows; a scalar tensor.

    Of several classes the mean of their binary cross entropies, of a number the squared error, as in transformers.
    """
    if batch.numbers_N is not None:
        return (logits_NV[:, 0] - batch.numbers_N.to(logits_NV.dtype)).square().sum()
    if batch.classes_2P is not None:
        wanted_NV = torch.zeros_like(logits_NV)
        wanted_NV[batch.classes_2P[0], batch.classes_2P[1]] = 1
        total = functional.binary_cross_entropy_with_logits(logits_NV, wanted_NV, reduction="sum")
        return total / logits_NV.shape[1]
    return summed_loss(logits_NV, batch.targets_N, smoothing=smoothing)


def training_loss(
    model: torch.nn.Module, batch: Batch, *, smoothing: float = 0.0, chunked: bool = True
) -> torch.Tensor:
    """The sum of the losses of the batch's positions or rows, with its gradient; a scalar tensor.

    `chunked`: whether the loss of many positions of a large vocabulary is computed in chunks, where the model allows.
    """
    size = _chunk_size(model, batch) if chunked else None
    if size is None:
        return batch_loss(forward(model, batch), batch, smoothing=smoothing)
    return chunked_loss(
        model,
        batch.ids_BT,
        batch.mask_BT,
        batch.positions_N,
        batch.targets_N,
        size=size,
        position_ids_BT=batch.position_ids_BT,
        smoothing=smoothing,
    )


def _chunk_size(model: torch.nn.Module, batch: Batch) -> int | None:
    """The positions of a chunk of the batch's loss; None: it is computed at once."""
    if not batch.of_tokens:
        return None
    return chunk_size(model, batch.ids_BT, batch.mask_BT, positions=len(batch.targets_N))


def mean_loss(
    model: torch.nn.Module,
    rows: Sequence[Row],
    *,
    pad_id: int,
    limit: PassLimit,
    ranks: Ranks,
    progress: Callable[[int, int], None] = lambda done, total: None,
    outputs: list[list[float]] | None = None,
) -> MeanLoss:
    """Mean loss and accuracy over the rows, without dropout; each rank computes a part of the rows.

    A pass that does not fit into the memory is repeated in halves, and `limit` is lower from then on. `progress` is
    called with the number of rows that are done, of all ranks together, and that of all rows. `outputs`, of a
    classification, gets the outputs for each row, in the order of the rows, on every rank.
    """
    found: list[list[float]] | None = None if outputs is None else []
    numbers_of_rows: list[int] = []
    lengths = row_lengths(rows)
    by_length = sorted(range(len(rows)), key=lengths.__getitem__)
    groups = split_rows([lengths[i] for i in by_length], limit=limit, world_size=ranks.world_size)
    sharded = is_sharded(model)
    totals = torch.zeros(3, dtype=torch.float64, device="cpu")
    was_training, done = model.training, 0
    model.eval()
    progress(0, len(rows))
    with torch.no_grad(), autocast(model, ranks.device):
        for group in groups:
            own = [rows[by_length[position]] for position in group[ranks.rank :: ranks.world_size]]
            batch = own or [rows[0]]  # a rank without rows joins the collectives of a sharded model
            totals += _summed(
                model,
                batch,
                pad_id=pad_id,
                limit=limit,
                device=ranks.device,
                joins=not own,
                sharded=sharded,
                outputs=found,
            )
            numbers_of_rows += [by_length[position] for position in group[ranks.rank :: ranks.world_size]]
            done += len(group)
            progress(done, len(rows))
    model.train(was_training)
    if outputs is not None and found is not None:
        every = ranks.all_gather_object([*zip(numbers_of_rows, found, strict=True)])
        outputs += [one for _, one in sorted(pair for pairs in every for pair in pairs)]
    loss, correct, counted = ranks.all_reduce_sum(totals.to(ranks.device)).tolist()
    return MeanLoss(loss=loss / counted, accuracy=correct / counted)


def _summed(
    model: torch.nn.Module,
    rows: Sequence[Row],
    *,
    pad_id: int,
    limit: PassLimit,
    device: torch.device,
    joins: bool,
    sharded: bool,
    outputs: list[list[float]] | None,
) -> torch.Tensor:
    """float64 (3,): the sums of losses, of right predictions and of counted positions; `joins`: zeros."""
    tokens = max(len(row.ids) for row in rows)
    if len(rows) <= limit.rows_of(tokens):

        def one_pass() -> torch.Tensor:
            batch = collate(rows, pad_id=pad_id, device=device, ignore_all=joins)
            if limit.chunked_loss and (size := _chunk_size(model, batch)) is not None:
                args = (model, batch.ids_BT, batch.mask_BT, batch.positions_N, batch.targets_N)
                found = [one.item() for one in chunked_sums(*args, size=size)]
                return torch.tensor([*found, len(batch.targets_N)], dtype=torch.float64)
            logits_NV, targets_N = forward(model, batch), batch.targets_N
            correct = (logits_NV.argmax(-1) == targets_N).sum()
            numbers = [batch_loss(logits_NV, batch).item(), correct.item(), len(targets_N)]
            if outputs is not None:
                outputs.extend(logits_NV.double().tolist())
            return torch.tensor(numbers, dtype=torch.float64)

        sums = without_out_of_memory(one_pass, may_retry=len(rows) > 1 and not sharded)
        if sums is not None:
            return sums
        limit.halve(rows=len(rows), tokens=tokens)
    half = len(rows) // 2
    parts = [
        _summed(
            model,
            part,
            pad_id=pad_id,
            limit=limit,
            device=device,
            joins=joins,
            sharded=sharded,
            outputs=outputs,
        )
        for part in (rows[:half], rows[half:])
    ]
    return parts[0] + parts[1]

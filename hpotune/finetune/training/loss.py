"""Losses as sums over positions, so that the mean is the same for any split of the rows over ranks and batches.

Shape suffixes: B batch, T tokens, N counted positions, V vocabulary or classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch.nn import functional

from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.training.pass_limit import PassLimit, is_sharded, split_rows, without_out_of_memory

IGNORED = -100  # torch's and transformers' target of a position that the loss does not count
HALF_PRECISION = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One training row as token ids."""

    ids: list[int]
    targets: list[int]
    """One per token (IGNORED: not counted), or the single class of the row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows, padded on the right."""

    ids_BT: torch.Tensor
    mask_BT: torch.Tensor
    targets: torch.Tensor
    """(B, T) for tokens, (B,) for classes."""


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
    if len(rows[0].targets) == 1:
        targets = torch.tensor([row.targets[0] for row in rows], device=device)
    else:
        padded = [row.targets + [IGNORED] * (length - len(row.targets)) for row in rows]
        targets = torch.tensor(padded, device=device)
    return Batch(
        ids_BT=torch.tensor(ids, device=device),
        mask_BT=torch.tensor(mask, device=device),
        targets=torch.full_like(targets, IGNORED) if ignore_all else targets,
    )


def autocast(model: torch.nn.Module, device: torch.device) -> AbstractContextManager[None]:
    """A context in which a half-precision base model has its adapter computed in half precision too.

    Without it peft computes the adapter's products in float32, on an A100 at a sixteenth of the speed.
    """
    dtype = next(p.dtype for p in model.parameters() if not p.requires_grad)
    context: AbstractContextManager[None] = torch.autocast(
        device.type, dtype=dtype, enabled=dtype in HALF_PRECISION
    )
    return context


def forward(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """logits_NV and targets_N of the counted positions; with N = 0 the logits still belong to the autograd graph."""
    logits = model(input_ids=batch.ids_BT, attention_mask=batch.mask_BT).logits
    targets = batch.targets
    if targets.dim() == 2:
        logits, targets = logits[:, :-1], targets[:, 1:]
    keep = targets != IGNORED
    logits_NV = logits[keep]
    return logits_NV.float() if logits_NV.dtype in HALF_PRECISION else logits_NV, targets[keep]


def summed_loss(logits_NV: torch.Tensor, targets_N: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
    """The sum of the cross entropies of the N positions, in nats; a scalar tensor."""
    return functional.cross_entropy(logits_NV, targets_N, reduction="sum", label_smoothing=smoothing)


def mean_loss(
    model: torch.nn.Module, rows: Sequence[Row], *, pad_id: int, limit: PassLimit, ranks: Ranks
) -> MeanLoss:
    """Mean loss and accuracy over the rows, without dropout; each rank computes a part of the rows.

    A pass that does not fit into the memory is repeated in halves, and `limit` is lower from then on.
    """
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
    groups = split_rows([len(rows[i].ids) for i in by_length], limit=limit, world_size=ranks.world_size)
    sharded = is_sharded(model)
    totals = torch.zeros(3, dtype=torch.float64, device="cpu")
    was_training = model.training
    model.eval()
    with torch.no_grad(), autocast(model, ranks.device):
        for group in groups:
            own = [rows[by_length[position]] for position in group[ranks.rank :: ranks.world_size]]
            batch = own or [rows[0]]  # a rank without rows joins the collectives of a sharded model
            totals += _summed(
                model, batch, pad_id=pad_id, limit=limit, device=ranks.device, joins=not own, sharded=sharded
            )
    model.train(was_training)
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
) -> torch.Tensor:
    """float64 (3,): the sums of losses, of right predictions and of counted positions; `joins`: zeros."""
    tokens = max(len(row.ids) for row in rows)
    if len(rows) <= limit.rows_of(tokens):

        def one_pass() -> torch.Tensor:
            batch = collate(rows, pad_id=pad_id, device=device, ignore_all=joins)
            logits_NV, targets_N = forward(model, batch)
            correct = (logits_NV.argmax(-1) == targets_N).sum()
            numbers = [summed_loss(logits_NV, targets_N).item(), correct.item(), len(targets_N)]
            return torch.tensor(numbers, dtype=torch.float64)

        sums = without_out_of_memory(one_pass, may_retry=len(rows) > 1 and not sharded)
        if sums is not None:
            return sums
        limit.halve(rows=len(rows), tokens=tokens)
    half = len(rows) // 2
    parts = [
        _summed(model, part, pad_id=pad_id, limit=limit, device=device, joins=joins, sharded=sharded)
        for part in (rows[:half], rows[half:])
    ]
    return parts[0] + parts[1]

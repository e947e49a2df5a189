"""Losses as sums over positions, so that the mean is the same for any split of the rows over ranks and batches.

Shape suffixes: B batch, T tokens, N counted positions, V vocabulary or classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch.nn import functional

from hpotune.finetune.data.batches import rank_micro_batches
from hpotune.finetune.distributed.ranks import Ranks

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
    model: torch.nn.Module, rows: Sequence[Row], *, pad_id: int, batch_size: int, ranks: Ranks
) -> MeanLoss:
    """Mean loss and accuracy over the rows, without dropout; each rank computes a part of the rows."""
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
    micro_batches = rank_micro_batches(
        by_length, rank=ranks.rank, world_size=ranks.world_size, micro_batch=batch_size
    )
    totals = torch.zeros(3, dtype=torch.float64, device="cpu")
    was_training = model.training
    model.eval()
    with torch.no_grad(), autocast(model, ranks.device):
        for indices in micro_batches:
            chosen = [rows[index] for index in indices] or [rows[0]]
            batch = collate(chosen, pad_id=pad_id, device=ranks.device, ignore_all=not indices)
            logits_NV, targets_N = forward(model, batch)
            correct = (logits_NV.argmax(-1) == targets_N).sum()
            numbers = [summed_loss(logits_NV, targets_N).item(), correct.item(), len(targets_N)]
            totals += torch.tensor(numbers, dtype=torch.float64)
    model.train(was_training)
    loss, correct, counted = ranks.all_reduce_sum(totals.to(ranks.device)).tolist()
    return MeanLoss(loss=loss / counted, accuracy=correct / counted)

"""The sanity checks of a trial: they run in every trial unless the study file switches them off.

Each returns what it compared, for result.json, and raises an error if the check fails.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from hpotune.config.yaml_source import Value
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model import adapter
from hpotune.finetune.model.adapter import AdapterInit
from hpotune.finetune.training.loss import IGNORED, Row, autocast, batch_loss, collate, forward
from hpotune.finetune.trial_errors import NotFinite, SanityCheckFailure

CheckRecord = dict[str, Value]
ROWS, TOKENS, AMONG = 2, 32, 256
"""The fixed batch: so many rows, the shortest that have so many tokens, among the first AMONG, and of a longer one only
so many tokens. Each trial computes it four times: few tokens pass through every layer too, and two whole rows took a
quarter of a small trial on a CPU."""

# Allowed relative difference of two losses that should be equal. exact: the new adapter adds zeros; rounded: it adds
# terms that cancel up to rounding; compensated: its product is subtracted from the base weights, which are rounded to
# their dtype; quantised: the base weights are rounded to 4 bits.
TOLERANCE: Mapping[AdapterInit, Mapping[torch.dtype, float]] = {
    "exact": {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 2e-3, torch.float16: 1e-3},
    "rounded": {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 1e-2},
    "compensated": {torch.float64: 1e-4, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2},
    "quantised": dict.fromkeys((torch.float64, torch.float32, torch.bfloat16, torch.float16), 0.5),
}


def fixed_batch_loss(model: torch.nn.Module, rows: Sequence[Row], *, pad_id: int) -> float:
    """The mean loss in nats on a few rows, without dropout; the batch is the same on every rank."""
    parameter = next(model.parameters())
    was_training = model.training
    model.eval()
    with torch.no_grad(), autocast(model, parameter.device):
        batch = collate(_fixed_batch(rows), pad_id=pad_id, device=parameter.device)
        loss = batch_loss(forward(model, batch), batch) / len(batch.targets_N)
    model.train(was_training)
    return float(loss)


def _fixed_batch(rows: Sequence[Row]) -> list[Row]:
    """The shortest rows of at least TOKENS tokens; where these are too few, the longest of the shorter ones."""
    by_length = sorted(rows[:AMONG], key=lambda row: (len(row.ids) < TOKENS, abs(len(row.ids) - TOKENS)))
    return [_window(row) for row in by_length[:ROWS]]


def _window(row: Row) -> Row:
    """The tokens up to the last one that the loss counts, at most TOKENS; a row with one target stays whole."""
    if len(row.targets) != len(row.ids):
        return row
    counted = [position for position, target in enumerate(row.targets) if target != IGNORED]
    end = counted[-1] + 1 if counted else len(row.ids)
    part = slice(max(0, end - TOKENS), end)
    return replace(row, ids=row.ids[part], targets=row.targets[part])


def check_identity(
    base: float, fresh: float, *, init: AdapterInit, dtype: torch.dtype, ranks: Ranks
) -> CheckRecord:
    """Check on every rank that the base model with a new adapter has the loss of the base model.

    Raises: SanityCheckFailure if a rank finds another loss.
    """
    pairs, tolerance = ranks.all_gather_object((base, fresh)), TOLERANCE[init][dtype]
    record: CheckRecord = {"ok": True, "base_loss": base, "fresh_loss": fresh, "tolerance": tolerance}
    for rank, (before, after) in enumerate(pairs):
        if not _close(before, after, tolerance):
            raise SanityCheckFailure(
                f"identity: a new adapter changes the base model's loss from {before:.6g} to {after:.6g} on rank "
                f"{rank} (allowed: a relative change of {tolerance:g}); change lora.init_lora_weights"
            )
    return record


def check_moved(model: torch.nn.Module, before: Mapping[str, torch.Tensor], *, ranks: Ranks) -> CheckRecord:
    """Check that training left the adapter finite, changed it, and left it equal on all ranks.

    Raises: NotFinite, SanityCheckFailure.
    """
    now = {name: tensor.double() for name, tensor in adapter.copy_adapter(model).items()}
    for name, tensor in now.items():
        if not tensor.isfinite().all():
            raise NotFinite(f"moved: {name} is not finite after training; lower train.learning_rate")
    change = max(float((now[name] - before[name].double()).abs().max()) for name in now)
    if change == 0:
        raise SanityCheckFailure(
            "moved: training did not change the adapter; raise train.learning_rate or the steps"
        )
    sums = ranks.all_gather_object(sum(float(tensor.sum()) for tensor in now.values()))
    if len(set(sums)) > 1:
        raise SanityCheckFailure(f"moved: the adapters of the ranks differ after training (sums {sums})")
    return {"ok": True, "largest_change": change}


def check_reload(
    memory: float, disk: float, folder: Path, *, converted: bool, dtype: torch.dtype, ranks: Ranks
) -> CheckRecord:
    """Check that a fresh base model with the saved adapter has the loss of the trained model.

    `memory`: the loss of the trained model. `disk`: that of the base model loaded again, with the adapter in `folder`;
    weights that are not in the checkpoint were drawn from another seed. `converted`: whether the adapter was saved as
    an ordinary one, so that the base weights of the two models are rounded differently. So the check finds what the
    adapter's file lacks, and changes of the frozen weights too. The base model is loaded twice a trial for this; the
    trained model is released first, so that the peak memory does not change.

    Raises: SanityCheckFailure if a rank finds another loss.
    """
    tolerance = TOLERANCE["compensated" if converted else "exact"][dtype]
    for rank, loss in enumerate(ranks.all_gather_object(disk)):
        if not _close(memory, loss, tolerance):
            raise SanityCheckFailure(
                f"reload: the adapter in {folder} gives a loss of {loss:.6g} on a fresh base model on rank {rank}, "
                f"the trained model {memory:.6g} (allowed: a relative change of {tolerance:g})"
            )
    return {"ok": True, "memory_loss": memory, "disk_loss": disk, "tolerance": tolerance}


SAME_MODEL = 0.01
"""Allowed relative difference of one model's validation loss on two kinds of machines, bfloat16 included."""


def check_same_loss(expected: float, measured: float) -> CheckRecord:
    """Check that a model that was trained before still has the validation loss that was recorded then.

    Raises: SanityCheckFailure if the base model, the adapter or the rows have changed.
    """
    if not _close(expected, measured, SAME_MODEL):
        raise SanityCheckFailure(
            f"same_model: the validation loss is {measured:.6g}, and {expected:.6g} was recorded (allowed: a relative "
            f"change of {SAME_MODEL:g}), so the base model, the adapter or the validation rows have changed since; "
            "restore them"
        )
    return {"ok": True, "recorded_loss": expected, "loss": measured, "tolerance": SAME_MODEL}


def _close(one: float, other: float, tolerance: float) -> bool:
    return math.isfinite(other) and abs(one - other) <= tolerance * max(abs(one), 1e-12)

"""The checks without which a number may be a lie: they run in every trial unless the study switches them off.

Each returns what it compared, for result.json, and raises where that does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import peft
import torch

from hpotune.config.schema.study_config import Json
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model import adapter
from hpotune.finetune.model.adapter import Start
from hpotune.finetune.training.loss import Row, autocast, collate, forward, summed
from hpotune.finetune.trial_errors import NotFinite, TruthFailure

Record = dict[str, Json]
ROWS = 2  # of the fixed batch

# Relative difference of two losses that should be one. exact: the branch adds zeros; rounded: sums that cancel;
# compensated: the base gives up what the adapter holds, rounded to its dtype; quantised: the base has 4 bits.
TOLERANCE: Mapping[Start, Mapping[torch.dtype, float]] = {
    "exact": {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 2e-3, torch.float16: 1e-3},
    "rounded": {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 1e-2},
    "compensated": {torch.float64: 1e-4, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2},
    "quantised": dict.fromkeys((torch.float64, torch.float32, torch.bfloat16, torch.float16), 0.5),
}


def fixed_loss(model: torch.nn.Module, rows: Sequence[Row], *, pad_id: int) -> float:
    """The mean loss on the first rows, the same on every rank, wherever the model is; without dropout."""
    parameter = next(model.parameters())
    was_training = model.training
    model.eval()
    with torch.no_grad(), autocast(model, parameter.device):
        logits_NV, targets_N = forward(model, collate(rows[:ROWS], pad_id=pad_id, device=parameter.device))
        loss = summed(logits_NV, targets_N) / len(targets_N)
    model.train(was_training)
    return float(loss)


def check_identity(base: float, fresh: float, *, start: Start, dtype: torch.dtype, ranks: Ranks) -> Record:
    """Base + fresh adapter gives the base's loss, on every rank.

    Raises: TruthFailure where a rank disagrees.
    """
    pairs, tolerance = ranks.gather((base, fresh)), TOLERANCE[start][dtype]
    record: Record = {"ok": True, "base_loss": base, "fresh_loss": fresh, "tolerance": tolerance}
    for rank, (before, after) in enumerate(pairs):
        if not _near(before, after, tolerance):
            raise TruthFailure(
                f"identity: a fresh adapter changes the base's loss from {before:.6g} to {after:.6g} on rank "
                f"{rank} (allowed: {tolerance:g} of it); look at lora.init_lora_weights"
            )
    return record


def check_moved(model: torch.nn.Module, before: Mapping[str, torch.Tensor], *, ranks: Ranks) -> Record:
    """After training the adapter is finite, differs from its start, and is one and the same on every rank.

    Raises: NotFinite, TruthFailure.
    """
    now = {name: tensor.double() for name, tensor in adapter.copy_of(model).items()}
    for name, tensor in now.items():
        if not tensor.isfinite().all():
            raise NotFinite(f"moved: {name} is not finite after training; lower train.learning_rate")
    change = max(float((now[name] - before[name].double()).abs().max()) for name in now)
    if change == 0:
        raise TruthFailure(
            "moved: training left the adapter as it was; raise train.learning_rate or the steps"
        )
    sums = ranks.gather(sum(float(tensor.sum()) for tensor in now.values()))
    if len(set(sums)) > 1:
        raise TruthFailure(f"moved: the ranks hold different adapters after training (sums {sums})")
    return {"ok": True, "largest_change": change}


def check_reload(
    model: peft.PeftModel, folder: Path, rows: Sequence[Row], *, pad_id: int, ranks: Ranks
) -> Record:
    """The adapter read back from disk gives the loss of the one in memory.

    The adapter in memory is overwritten by NaN first: a tensor that the file lacks must not pass unseen.
    Raises: TruthFailure.
    """
    memory = fixed_loss(model, rows, pad_id=pad_id)
    for parameter in adapter.weights(model).values():
        parameter.data.fill_(math.nan)
    adapter.restore(model, folder)
    disk = fixed_loss(model, rows, pad_id=pad_id)
    tolerance = TOLERANCE["exact"][next(model.parameters()).dtype]
    for rank, loss in enumerate(ranks.gather(disk)):
        if not _near(memory, loss, tolerance):
            raise TruthFailure(
                f"reload: the adapter in {folder} gives a loss of {loss:.6g} on rank {rank}, "
                f"the one in memory {memory:.6g}"
            )
    return {"ok": True, "memory_loss": memory, "disk_loss": disk, "tolerance": tolerance}


def _near(one: float, other: float, tolerance: float) -> bool:
    return math.isfinite(other) and abs(one - other) <= tolerance * max(abs(one), 1e-12)

"""What a trial decides by the memory estimate before it starts: micro-batch and activation checkpointing, where `auto`.

Neither changes what is trained: the loss is a sum over the counted tokens of the global batch. The choice is written to
memory.json in the trial's folder, so that a trial that continues keeps it; beside it the peak of the first steps, by
which later trials of the study correct their choice. Dropout is drawn for each micro-batch: with it the choice depends
on the estimate alone, so that trials with equal settings draw the same.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from hpotune.config.json_file import optional_object
from hpotune.config.memory.gpu_memory import RESERVED_GIB
from hpotune.config.memory.memory_estimate import GIB, Machine
from hpotune.config.memory.model_shape import UnknownMemory, read_shape
from hpotune.config.memory.point_memory import (
    AUTO,
    AUTO_ALONE,
    AUTO_KEYS,
    DEFAULT_MICRO_BATCH,
    MEMORY_FILE,
    MICRO_BATCH,
    RowLengths,
    checkpointing_of,
    choose_memory,
    counted_lengths,
    micro_batches,
)
from hpotune.config.schema.study_config import PointConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.output import TrialOutput
from hpotune.finetune.training.loss import IGNORED, Row, row_lengths
from hpotune.finetune.trial_errors import UserError
from hpotune.records.trial import TrialSpec
from hpotune.workspace.atomic_files import write_atomic

V1, V2 = ("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")
"""Files of a control group: its limit, and what is used."""
HOST_SHARE = 0.5
"""Of the free memory of a machine without GPUs, which other trials use too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryChoice:
    """How a trial trains, and what it was chosen by."""

    micro_batch: int
    checkpointing: bool
    estimate: int | None
    """Bytes of a training step; None: not estimated."""
    available: int
    """Bytes that tensors can use on each rank."""
    ratio: float
    """Measured peaks of earlier trials over their estimates."""
    reason: str = ""
    """Why nothing is estimated."""

    def applied(self, train: Mapping[str, Value]) -> dict[str, Value]:
        """The `train` section with the chosen values instead of auto."""
        chosen: dict[str, Value] = {
            MICRO_BATCH: self.micro_batch,
            "activation_checkpointing": self.checkpointing,
        }
        return {
            key: chosen[key] if key in AUTO_KEYS and value == AUTO else value for key, value in train.items()
        }


def has_auto(train: Mapping[str, Value]) -> bool:
    """Whether a `train` section leaves something to the estimate."""
    return any(train.get(key) == AUTO for key in AUTO_KEYS)


def memory_choice(
    spec: TrialSpec, rows: Sequence[Row], *, ranks: Ranks, output: TrialOutput, available: int | None = None
) -> MemoryChoice | None:
    """The choice of a trial, the one of its earlier attempt if there was one; None where nothing is left to choose.

    The same on all ranks. `available`: bytes that tensors can use; None: as the device has.
    Raises: UserError where the batch of a step would depend on the memory.
    """
    train = spec.point.train
    if not has_auto(train):
        return None
    if train.get(MICRO_BATCH) == AUTO and "global_batch_size" not in train:
        raise UserError(f"{AUTO_ALONE}; write global_batch_size, e.g. 16")
    file = Path(spec.folder) / MEMORY_FILE
    if available is None:
        here = ranks.all_gather_object(socket.gethostname()).count(socket.gethostname())
        available = available_memory(ranks.device, ranks_here=here)
    has = min(ranks.all_gather_object(available))
    chosen = ranks.broadcast_object(_earlier(file) or _choose(spec, rows, ranks=ranks, available=has))
    if ranks.is_main:
        _write(file, chosen, peak=None)
    output.metrics.update(micro_batch=chosen.micro_batch, activation_checkpointing=chosen.checkpointing)
    if chosen.estimate is not None:
        output.metrics["memory_estimate_gb"] = chosen.estimate / 1e9
    else:
        output.add_warning(f"train: the memory of the trial is not estimated: {chosen.reason}")
    return chosen


def record_peak(
    spec: TrialSpec, chosen: MemoryChoice, peak: int, *, ranks: Ranks, output: TrialOutput
) -> None:
    """Keep the measured peak of the first steps, the largest of the ranks, beside the estimate. A collective."""
    most = max(ranks.all_gather_object(peak))
    output.metrics["first_steps_peak_gb"] = most / 1e9
    if ranks.is_main:
        _write(Path(spec.folder) / MEMORY_FILE, chosen, peak=most)


def available_memory(device: torch.device, *, ranks_here: int = 1) -> int:
    """Bytes that the tensors of a rank can use: of its GPU, or its part of what the machine and the job have free."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory - RESERVED_GIB * GIB)
    found = [4 * GIB]
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            found = [1024 * int(line.split()[1])]
    if (left := job_memory_left()) is not None:
        found.append(left)
    return int(HOST_SHARE * min(found) / ranks_here)


def job_memory_left(
    *, proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Bytes that this process's control groups, as Slurm makes them for a job, leave free; None: they set no limit."""
    found = []
    with suppress(OSError, ValueError):
        for line in proc.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            base, names = (root / "memory", V1) if controllers else (root, V2)
            folder = base / group.lstrip("/")
            for one in (folder, *folder.parents):
                if one == base.parent:
                    break
                found += _left_in(one, *names)
    return min(found, default=None)


def _left_in(folder: Path, limit: str, used: str) -> list[int]:
    with suppress(OSError, ValueError):  # the root group has no files, and `max` is no number
        return [max(0, int((folder / limit).read_text()) - int((folder / used).read_text()))]
    return []


def _choose(spec: TrialSpec, rows: Sequence[Row], *, ranks: Ranks, available: int) -> MemoryChoice:
    point, machine = spec.point, Machine(gpu=ranks.device.type == "cuda", ranks=ranks.world_size)
    assert point.model is not None, "a fine-tuning trial has a model"
    ratio = 1.0 if _draws_noise(point) else measured_ratio(Path(spec.folder).parent)
    lengths = RowLengths(
        longest=max(row_lengths(rows)),
        counted=counted_lengths((row.targets for row in rows), ignored=IGNORED),
    )
    try:
        shape = read_shape(point.model.path, revision=point.model.revision)
        found = choose_memory(point, shape, lengths, machine=machine, available=available, ratio=ratio)
    except UnknownMemory as error:
        sizes, checkpointing = (
            micro_batches(point.train, ranks=ranks.world_size),
            checkpointing_of(point.train),
        )
        careful = next(size for size in [*sizes, 1] if size <= DEFAULT_MICRO_BATCH)
        return MemoryChoice(
            micro_batch=careful if point.train.get(MICRO_BATCH) == AUTO else sizes[0],
            checkpointing=checkpointing is not False,
            estimate=None,
            available=available,
            ratio=ratio,
            reason=str(error),
        )
    return MemoryChoice(
        micro_batch=found.micro_batch,
        checkpointing=found.checkpointing,
        estimate=found.estimate.peak,
        available=available,
        ratio=ratio,
    )


def _draws_noise(point: PointConfig) -> bool:
    """Whether a training pass draws random numbers, which depend on the micro-batch."""
    return bool(point.lora.get("lora_dropout")) or point.train.get("neftune_noise_alpha") is not None


def measured_ratio(trials: Path) -> float:
    """The largest measured peak of the study's trials over its estimate; at least 1.0.

    The first steps need not hold the longest row, for which the estimate is, so a low peak says nothing.
    """
    ratios = []
    for file in trials.glob(f"*/{MEMORY_FILE}"):
        found = optional_object(file) or {}
        estimate, peak = found.get("estimate_bytes"), found.get("peak_bytes")
        if isinstance(estimate, int) and isinstance(peak, int) and estimate > 0 and peak > 0:
            ratios.append(peak / estimate)
    return max([1.0, *ratios])


def _earlier(file: Path) -> MemoryChoice | None:
    """The choice of an earlier attempt at the trial."""
    found = optional_object(file) if file.is_file() else None
    if found is None:
        return None
    try:
        return MemoryChoice(
            micro_batch=int(found["micro_batch"]),
            checkpointing=bool(found["activation_checkpointing"]),
            estimate=found["estimate_bytes"],
            available=int(found["available_bytes"]),
            ratio=float(found["ratio"]),
            reason=str(found["reason"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _write(file: Path, chosen: MemoryChoice, *, peak: int | None) -> None:
    content = {
        "micro_batch": chosen.micro_batch,
        "activation_checkpointing": chosen.checkpointing,
        "estimate_bytes": chosen.estimate,
        "available_bytes": chosen.available,
        "ratio": chosen.ratio,
        "reason": chosen.reason,
        "peak_bytes": peak,
    }
    write_atomic(file, json.dumps(content, indent=1) + "\n")

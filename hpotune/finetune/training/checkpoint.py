"""The checkpoint of a trial, readable with any number of ranks.

It holds what is trained, the optimizer, the schedule and the progress. It holds no random state: the order of the rows
and the dropout are functions of (seed, step), and nothing else is random. With an adapter it is one file. Where all
weights are trained, the tensors stand in further files (sharded_state.py), which the one file names: it is written
last, and the files of the checkpoint before are deleted after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from hpotune.finetune.distributed.fsdp import local_part
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model.adapter import trainable_parameters
from hpotune.finetune.training.sharded_state import delete_other_files, part_reader, write_tensors
from hpotune.finetune.trial_errors import UserError
from hpotune.records.lineage import FREE
from hpotune.records.trial import TrialSpec

FILE = "state.pt"
OWN_OPTIONS = ("initial_lr", "weight_decay", "betas", "eps", "momentum")
"""Optimizer options that a trial keeps as its own when it continues from another trial's state."""


@dataclass(kw_only=True, slots=True)
class Progress:
    """How far a training is."""

    step: int = 0
    """Steps made."""
    losses: list[float] = field(default_factory=list)
    """Mean loss of each step."""
    rows: int = 0
    """Rows read."""
    tokens: int = 0
    """Tokens read, without padding."""
    train_seconds: float = 0.0
    """Training time, over all processes of this trial."""
    process_seconds: float = 0.0
    """Time since their start of the processes that wrote this checkpoint and those before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingState:
    """The objects that training changes."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    whole: bool = False
    """Whether all weights are trained, each rank holding its shard; False: an adapter, which every rank has whole."""


def training_fingerprint(spec: TrialSpec, *, global_batch: int) -> str:
    """A hash that is equal for two trainings that must end with the same adapter."""
    parts = [spec.point.model_dump_json(exclude={"score"}), spec.seed, global_batch]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def lineage_fingerprint(spec: TrialSpec, *, global_batch: int) -> str:
    """A hash that is equal for two trainings of which one may continue from the other's checkpoint."""
    point = spec.point.model_dump(mode="json", exclude={"score"})
    for section, names in FREE.items():
        point[section] = {key: value for key, value in point[section].items() if key not in names}
    return hashlib.sha256(json.dumps([point, spec.seed, global_batch]).encode()).hexdigest()


def save_checkpoint(
    folder: Path, state: TrainingState, progress: Progress, *, fingerprint: str, lineage: str, ranks: Ranks
) -> None:
    """Write the checkpoint atomically on rank 0; all ranks return once it is written."""
    if ranks.is_main:
        folder.mkdir(parents=True, exist_ok=True)
    saved = {
        "fingerprint": fingerprint,
        "lineage": lineage,
        "scheduler": state.scheduler.state_dict(),
        "progress": asdict(progress),
    }
    if state.whole:
        optimizer, tensors = _divided(state.optimizer)
        weights = {f"weight.{name}": p.data for name, p in trainable_parameters(state.model).items()}
        saved |= {"optimizer": optimizer, "files": write_tensors(folder, (weights | tensors).items(), ranks)}
    elif ranks.is_main:
        weights = {name: p.data for name, p in trainable_parameters(state.model).items()}
        saved |= {"optimizer": state.optimizer.state_dict(), "adapter": weights}
    if ranks.is_main:
        torch.save(saved, folder / f"{FILE}.tmp")
        os.replace(folder / f"{FILE}.tmp", folder / FILE)
        delete_other_files(folder, saved.get("files", {}))
    ranks.barrier()


def _divided(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The state of the optimizer without its large tensors, and those by `state.PARAMETER.KEY`."""
    whole = optimizer.state_dict()
    large = {
        f"state.{number}.{key}": value
        for number, entries in whole["state"].items()
        for key, value in entries.items()
        if isinstance(value, torch.Tensor) and value.dim() > 0
    }
    small = {
        number: {key: value for key, value in entries.items() if f"state.{number}.{key}" not in large}
        for number, entries in whole["state"].items()
    }
    return {**whole, "state": small}, large


def load_checkpoint(folder: Path, state: TrainingState, *, fingerprint: str, ranks: Ranks) -> Progress:
    """Restore the state from the checkpoint and return its progress; no progress without a matching checkpoint."""
    if not ranks.broadcast_object((folder / FILE).is_file()):
        return Progress()
    saved = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    if saved["fingerprint"] != fingerprint:
        warnings.warn(
            f"{folder} belongs to another training; this one starts from its first step", stacklevel=2
        )
        return Progress()
    return _restore_state(saved, state, folder=folder, ranks=ranks)


def resume(
    folder: Path, state: TrainingState, *, fingerprint: str, parent: str | None, lineage: str, ranks: Ranks
) -> Progress:
    """Restore the state from the trial's checkpoint, else from its parent's, and return its progress."""
    progress = load_checkpoint(folder, state, fingerprint=fingerprint, ranks=ranks)
    if parent is None or progress.step:
        return progress
    return load_parent_checkpoint(Path(parent) / "checkpoint", state, lineage=lineage, ranks=ranks)


def load_parent_checkpoint(folder: Path, state: TrainingState, *, lineage: str, ranks: Ranks) -> Progress:
    """Restore the state from the parent's checkpoint and return its progress; the trial keeps its own options.

    The schedule continues from the parent's step, with the trial's own learning rate.
    Raises: UserError without a checkpoint that the trial can continue from.
    """
    if not ranks.broadcast_object((folder / FILE).is_file()):
        raise UserError(f"{folder}: the parent's checkpoint, from which this trial continues, is missing")
    saved = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    if saved.get("lineage") != lineage:
        raise UserError(
            f"{folder}: this trial cannot continue from its parent: its model, data, adapter or length differ"
        )
    optimizer, scheduler = state.optimizer, state.scheduler
    assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR), (
        "others are refused (config/library_values.py)"
    )
    own_options = [
        {key: group[key] for key in OWN_OPTIONS if key in group} for group in optimizer.param_groups
    ]
    base_lrs = list(scheduler.base_lrs)
    progress = _restore_state(saved, state, folder=folder, ranks=ranks)
    # load_state_dict has overwritten both with the parent's: put the trial's own back.
    scheduler.base_lrs = base_lrs
    lrs = [
        base_lr * factor(scheduler.last_epoch)
        for base_lr, factor in zip(base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    for group, options, lr in zip(optimizer.param_groups, own_options, lrs, strict=True):
        group.update(options | {"lr": lr})
    scheduler._last_lr = lrs
    progress.process_seconds = 0.0  # the parent's, which count as the parent's cost
    return progress


def _restore_state(saved: dict[str, Any], state: TrainingState, *, folder: Path, ranks: Ranks) -> Progress:
    if state.whole:
        _restore_tensors(saved, state, folder=folder, ranks=ranks)
    else:
        for name, parameter in trainable_parameters(state.model).items():
            parameter.data.copy_(saved["adapter"][name])
        state.optimizer.load_state_dict(saved["optimizer"])
    state.scheduler.load_state_dict(saved["scheduler"])
    known: Iterator[str] = (entry.name for entry in fields(Progress))
    return Progress(**{name: saved["progress"][name] for name in known})


def _restore_tensors(saved: dict[str, Any], state: TrainingState, *, folder: Path, ranks: Ranks) -> None:
    """Weights and optimizer state from the files of the checkpoint; each rank reads its shards."""
    read = part_reader(folder, saved["files"], ranks)
    for name, parameter in trainable_parameters(state.model).items():
        local_part(parameter.data).copy_(local_part(read(f"weight.{name}", parameter.data)))
    parameters = [one for group in state.optimizer.param_groups for one in group["params"]]
    entries = {number: dict(small) for number, small in saved["optimizer"]["state"].items()}
    for name in saved["files"]:
        kind, number, key = (*name.split(".", 2), "")[:3]
        if kind == "state":
            entries[int(number)][key] = read(name, parameters[int(number)].data)
    state.optimizer.load_state_dict({**saved["optimizer"], "state": entries})


def delete_checkpoint(folder: Path, ranks: Ranks) -> None:
    """Delete the checkpoint of a finished trial, on rank 0."""
    if ranks.is_main:
        shutil.rmtree(folder, ignore_errors=True)

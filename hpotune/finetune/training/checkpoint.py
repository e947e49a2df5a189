"""Where a trial can go on after a kill: one file, the same for any number of ranks.

It holds the adapter, the optimizer, the schedule and the progress. No state of a random generator: the order
of the rows and the dropout are functions of (seed, step), and nothing else draws.
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

from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model.adapter import trainable
from hpotune.finetune.trial_errors import UserError
from hpotune.records.lineage import FREE
from hpotune.records.trial import TrialSpec

FILE = "state.pt"
OWN = ("initial_lr", "weight_decay", "betas", "eps", "momentum")
"""What a trial's optimizer keeps of its own values when it goes on from another one's state."""


@dataclass(kw_only=True, slots=True)
class Progress:
    """How far a training is."""

    step: int = 0
    """Steps done."""
    losses: list[float] = field(default_factory=list)
    """Mean loss of each step."""
    rows: int = 0
    tokens: int = 0
    """Read, padding left out."""
    train_seconds: float = 0.0
    process_seconds: float = 0.0
    """Of the processes that wrote earlier checkpoints, from their start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """What moves while training."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler


def fingerprint(spec: TrialSpec, *, global_batch: int) -> str:
    """Equal for two trainings that must end with the same adapter."""
    parts = [spec.point.model_dump_json(exclude={"score"}), spec.seed, global_batch]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def lineage(spec: TrialSpec, *, global_batch: int) -> str:
    """Equal for two trainings of which one may go on from the other's checkpoint."""
    point = spec.point.model_dump(mode="json", exclude={"score"})
    for section, names in FREE.items():
        point[section] = {key: value for key, value in point[section].items() if key not in names}
    return hashlib.sha256(json.dumps([point, spec.seed, global_batch]).encode()).hexdigest()


def save(
    folder: Path, learner: Learner, progress: Progress, *, mark: str, ranks: Ranks, line: str = ""
) -> None:
    """Rank 0 writes the checkpoint and moves it into place; all ranks return when it stands there."""
    if ranks.first_one:
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "fingerprint": mark,
            "lineage": line,
            "adapter": {name: p.data for name, p in trainable(learner.model).items()},
            "optimizer": learner.optimizer.state_dict(),
            "scheduler": learner.scheduler.state_dict(),
            "progress": asdict(progress),
        }
        torch.save(state, folder / f"{FILE}.tmp")
        os.replace(folder / f"{FILE}.tmp", folder / FILE)
    ranks.wait()


def load(folder: Path, learner: Learner, *, mark: str, ranks: Ranks) -> Progress:
    """The progress of the checkpoint, put into the learner; the start where there is none of this training."""
    if not ranks.first((folder / FILE).is_file()):
        return Progress()
    state = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    if state["fingerprint"] != mark:
        warnings.warn(
            f"{folder} belongs to another training; this one starts from its first step", stacklevel=2
        )
        return Progress()
    return _put(state, learner)


def begin(
    folder: Path, learner: Learner, *, mark: str, parent: str | None, line: str, ranks: Ranks
) -> Progress:
    """The progress of its own checkpoint, else of its parent's, put into the learner; else the start."""
    progress = load(folder, learner, mark=mark, ranks=ranks)
    if parent is None or progress.step:
        return progress
    return inherit(Path(parent) / "checkpoint", learner, line=line, ranks=ranks)


def inherit(folder: Path, learner: Learner, *, line: str, ranks: Ranks) -> Progress:
    """The progress of the parent's checkpoint, put into the learner; its own learning rate, decay and so on stay.

    The schedule goes on from the parent's step. Raises: UserError where there is no checkpoint to go on from.
    """
    if not ranks.first((folder / FILE).is_file()):
        raise UserError(f"{folder}: the checkpoint of the trial that this one goes on from is gone")
    state = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    if state.get("lineage") != line:
        raise UserError(
            f"{folder}: this trial cannot go on from there: its model, data, adapter or length differ"
        )
    optimizer, scheduler = learner.optimizer, learner.scheduler
    assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR), (
        "others are refused (config/library_fields.py)"
    )
    own = [{key: group[key] for key in OWN if key in group} for group in optimizer.param_groups]
    bases = list(scheduler.base_lrs)
    progress = _put(state, learner)
    scheduler.base_lrs = bases
    rates = [
        base * factor(scheduler.last_epoch) for base, factor in zip(bases, scheduler.lr_lambdas, strict=True)
    ]
    for group, mine, rate in zip(optimizer.param_groups, own, rates, strict=True):
        group.update(mine | {"lr": rate})
    scheduler._last_lr = rates
    progress.process_seconds = 0.0  # its parent's, which has been paid for
    return progress


def _put(state: dict[str, Any], learner: Learner) -> Progress:
    for name, parameter in trainable(learner.model).items():
        parameter.data.copy_(state["adapter"][name])
    learner.optimizer.load_state_dict(state["optimizer"])
    learner.scheduler.load_state_dict(state["scheduler"])
    known: Iterator[str] = (entry.name for entry in fields(Progress))
    return Progress(**{name: state["progress"][name] for name in known})


def remove(folder: Path, ranks: Ranks) -> None:
    """Rank 0 deletes the checkpoint of a finished trial."""
    if ranks.first_one:
        shutil.rmtree(folder, ignore_errors=True)

"""The point's `train` section as transformers understands it: arguments, optimizer, schedule, steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers

from hpotune.config.library_fields import UNFIT
from hpotune.config.schema.rungs import Rung
from hpotune.config.schema.study_config import Json
from hpotune.config.supported_fields import OWN, check_train_key
from hpotune.finetune.data.batches import Batches
from hpotune.finetune.model.adapter import trainable
from hpotune.finetune.trial_errors import DataError, UserError

CURVE_LINES = 500  # of a curve.jsonl without logging_steps, about


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What the training of one trial comes to."""

    batches: Batches
    micro_batch: int
    """Rows a forward pass on one rank; changes memory and speed only."""
    steps: int
    """Of the whole run, which the schedule is made for."""
    log_every: int
    """Steps a line of the curve."""
    save_every: int | None
    """Steps between checkpoints; None: by the clock."""
    warmup: int = 0
    """Steps until the learning rate is at its height."""
    until: int | None = None
    """Steps after which this turn ends; None: all."""

    @property
    def end(self) -> int:
        """The last step of this turn."""
        return self.steps if self.until is None else self.until


def arguments(train: dict[str, Json], *, seed: int, folder: Path) -> transformers.TrainingArguments:
    """The section, checked by transformers itself.

    Raises: UserError for a key or a value that the loop does not honour.
    """
    for key in train:
        complaint = check_train_key(key)
        if complaint:
            raise UserError(f"train.{complaint}")
    if "global_batch_size" in train and "gradient_accumulation_steps" in train:
        raise UserError(
            "train: global_batch_size and gradient_accumulation_steps exclude each other; keep one"
        )
    given = {key: value for key, value in train.items() if key not in OWN}
    said = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # it would miss its own DDP, and advise a launcher
    try:
        # use_cpu: it only reads values here; left to itself it would claim the first GPU.
        args = transformers.TrainingArguments(
            **{"output_dir": str(folder), "report_to": "none", "use_cpu": True, "seed": seed, **given}
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"train: {error}") from error
    finally:
        transformers.utils.logging.set_verbosity(said)
    for field, (starts, why) in UNFIT.items():
        value = getattr(args, field).value
        if value.startswith(starts):
            raise UserError(f"train.{field}: {value} {why}")
    if "sgd_momentum" in train and args.optim.value != "sgd":
        raise UserError(f"train.sgd_momentum: only with optim: sgd, not {args.optim.value}; see `when:`")
    return args


def plan(args: transformers.TrainingArguments, train: dict[str, Json], *, rows: int, world_size: int) -> Plan:
    """Steps and batches; without global_batch_size a step is per device x accumulation x ranks of rows.

    Raises: DataError where the rows do not fill one batch and dataloader_drop_last is set.
    """
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * world_size
    total = int(train.get("global_batch_size", per_step))
    if total < 1:
        raise UserError(f"train.global_batch_size: {total} needs to be at least 1")
    data_seed = args.seed if args.data_seed is None else args.data_seed
    batches = Batches(rows=rows, global_batch=total, seed=data_seed, drop_last=args.dataloader_drop_last)
    if not batches.steps_per_epoch:
        raise DataError(
            f"{rows} rows do not fill one batch of {total}, and train.dataloader_drop_last drops the rest"
        )
    steps = (
        args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * batches.steps_per_epoch)
    )
    return Plan(
        batches=batches,
        micro_batch=min(args.per_device_train_batch_size, math.ceil(total / world_size)),
        steps=steps,
        log_every=_every(args.logging_steps, steps)
        if "logging_steps" in train
        else max(1, steps // CURVE_LINES),
        save_every=_every(args.save_steps, steps) if "save_steps" in train else None,
        warmup=args.get_warmup_steps(steps),
    )


def reaching(plan: Plan, rung: Rung | None) -> Plan:
    """The plan with the end of a turn that goes to a rung; items are scored when all is trained."""
    if rung is None or rung.last or rung.unit == "items":
        return plan
    wanted = {
        "share": rung.budget * plan.steps,
        "steps": rung.budget,
        "rows": rung.budget / plan.batches.global_batch,
    }[rung.unit]
    return replace(plan, until=min(plan.steps, max(1, math.ceil(wanted - 1e-9))))  # 3 of 9 is a third of 9


def build(
    args: transformers.TrainingArguments, model: torch.nn.Module, *, momentum: float | None, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Optimizer and schedule over the trainable parameters; biases and norms do not decay, as in the Trainer.

    Raises: UserError where the optimizer's package is not installed.
    """
    try:
        kind, options = transformers.Trainer.get_optimizer_cls_and_kwargs(args, model)
    except (ImportError, ValueError) as error:
        raise UserError(f"train.optim: {error}") from error
    if momentum is not None:
        options["momentum"] = momentum
    decaying = set(transformers.Trainer.get_decay_parameter_names(None, model))  # reads only the model
    parameters = trainable(model)
    groups = [
        {"params": [p for n, p in parameters.items() if n in decaying], "weight_decay": args.weight_decay},
        {"params": [p for n, p in parameters.items() if n not in decaying], "weight_decay": 0.0},
    ]
    optimizer = kind([group for group in groups if group["params"]], **options)
    scheduler = transformers.get_scheduler(
        args.lr_scheduler_type,
        optimizer=optimizer,
        num_warmup_steps=args.get_warmup_steps(steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=args.lr_scheduler_kwargs,
    )
    return optimizer, scheduler


def _every(steps: float, total: int) -> int:
    """Steps, or where below 1 that share of all steps."""
    return max(1, math.ceil(steps * total) if steps < 1 else int(steps))

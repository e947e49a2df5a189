"""The `train` section of a point as transformers reads it: arguments, steps, optimizer and learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import transformers

from hpotune.config.library_keys import OWN, check_train_key
from hpotune.config.library_values import AUTO_KEYS, UNFIT
from hpotune.config.schema.rungs import Rung
from hpotune.config.yaml_source import Value
from hpotune.finetune.data.batches import Batches
from hpotune.finetune.model.adapter import trainable_parameters
from hpotune.finetune.training.compiled import KEYS as COMPILE_KEYS
from hpotune.finetune.trial_errors import DataError, UserError

UNKNOWN_STEPS = 1000
"""Length for which a schedule is built where the number of steps is not known yet."""
ROUNDING = 1e-9
CURVE_LINES = 500  # about how many lines curve.jsonl gets without logging_steps


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPlan:
    """The batches and steps of one trial's training."""

    batches: Batches
    micro_batch: int
    """Rows of a forward pass on one rank; affects memory and speed only."""
    steps: int
    """Steps of the whole run, for which the learning rate schedule is built."""
    log_every: int
    """Steps between two lines of curve.jsonl."""
    save_every: int | None
    """Steps between checkpoints; None: a checkpoint every ten minutes."""
    warmup: int = 0
    """Steps of the learning rate warm-up."""
    pack_tokens: int | None = None
    """Tokens of a sequence of packed rows; None: rows are not packed."""
    pack_flat: bool = False
    """Whether the sequences of a pass are one, without padding, as flash attention reads packed rows."""
    chunked_loss: bool = True
    """Whether the loss of many positions of a large vocabulary is computed in chunks, where the model allows."""
    stage_end: int | None = None
    """The last step of this stage, which ends at a rung; None: the stage is the rest of the run."""

    @property
    def last_step(self) -> int:
        """The last step of this stage."""
        return self.steps if self.stage_end is None else self.stage_end


def training_arguments(
    train: Mapping[str, Value], *, seed: int, folder: Path
) -> transformers.TrainingArguments:
    """The section as TrainingArguments, which check the values.

    Raises: UserError for a key or a value that the training loop does not support.
    """
    for key in train:
        error_text = check_train_key(key)
        if error_text:
            raise UserError(f"train.{error_text}")
    if "global_batch_size" in train and "gradient_accumulation_steps" in train:
        raise UserError(
            "train: global_batch_size and gradient_accumulation_steps exclude each other; keep one"
        )
    fields = {
        key: value
        for key, value in train.items()
        # `auto` is replaced by a trial; with torch_compile, transformers changes settings of the whole process
        if key not in {*OWN, *COMPILE_KEYS} and not (key in AUTO_KEYS and value == "auto")
    }
    if (
        not torch.cuda.is_available()
    ):  # transformers refuses it there; the rehearsal has no GPU, the trial may have
        fields.pop("tf32", None)
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # it warns that DDP is not initialised, which does not apply
    try:
        # use_cpu: only the values are needed; otherwise TrainingArguments initialises the first GPU.
        args = transformers.TrainingArguments(
            **{"output_dir": str(folder), "report_to": "none", "use_cpu": True, "seed": seed, **fields}
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"train: {error}") from error
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
    for field, (prefixes, reason) in UNFIT.items():
        value = getattr(args, field).value
        if value.startswith(prefixes):
            raise UserError(f"train.{field}: {value} {reason}")
    if "sgd_momentum" in train and args.optim.value != "sgd":
        raise UserError(f"train.sgd_momentum: only with optim: sgd, not {args.optim.value}; see `when:`")
    _check_without_model(args, momentum=cast("float | None", train.get("sgd_momentum")))
    return args


def _check_without_model(args: transformers.TrainingArguments, *, momentum: float | None) -> None:
    """Build optimizer and schedule for a single weight, so that a wrong argument is found before a model is loaded.

    An optimizer of another package than torch and transformers is only looked up: it may need a GPU.
    Raises: UserError.
    """
    weight = torch.nn.Linear(1, 1, bias=False)
    kind, _ = _optimizer_class(args, weight)
    if kind.__module__.startswith(("torch.", "transformers.")):
        build_optimizer(args, weight, momentum=momentum, steps=UNKNOWN_STEPS)
    if args.max_steps > 0:
        check_schedule(args, args.max_steps)


def check_schedule(args: transformers.TrainingArguments, steps: int) -> None:
    """Compute the learning rates of a run of so many steps; a wrong schedule may fail at its very last step.

    Raises: UserError if one of them is above train.learning_rate, is below 0, or cannot be computed.
    """
    warmup = args.get_warmup_steps(steps)
    _check_stages(args, steps, warmup=warmup)
    weight = torch.nn.Parameter(torch.zeros(1))
    scheduler = _schedule(args, torch.optim.SGD([weight], args.learning_rate), steps=steps)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR), "others are refused (library_values.py)"
    for step in sorted({0, min(warmup, steps), (warmup + steps) // 2, steps - 1, steps}):
        try:
            factor = scheduler.lr_lambdas[0](step)
        except (ArithmeticError, ValueError, TypeError) as error:
            raise UserError(
                f"train.lr_scheduler_type: {args.lr_scheduler_type.value} has no rate at step {step} of {steps} after "
                f"a warm-up of {warmup} steps ({error}); lower warmup_steps, or correct lr_scheduler_kwargs"
            ) from error
        if not 0 <= factor <= 1 + ROUNDING:
            raise UserError(
                f"train.lr_scheduler_kwargs: the rate of step {step} of {steps} would be {factor:g} times "
                "learning_rate; needs 0 to 1"
            )


def _check_stages(args: transformers.TrainingArguments, steps: int, *, warmup: int) -> None:
    """Raises: UserError if the decay of warmup_stable_decay and the warm-up are longer than the run."""
    given = args.lr_scheduler_kwargs or {}
    decay = given.get("num_decay_steps")
    if not isinstance(decay, (int, float)) or given.get("num_stable_steps") is not None:
        return
    if warmup + decay > steps:
        raise UserError(
            f"train.lr_scheduler_kwargs: num_decay_steps: {decay} and a warm-up of {warmup} steps are more than the "
            f"{steps} steps of the run; lower one"
        )


def step_plan(
    args: transformers.TrainingArguments, train: Mapping[str, Value], *, rows: int, world_size: int
) -> StepPlan:
    """The batches and steps; without global_batch_size a step reads per-device batch x accumulation x ranks rows.

    Raises: DataError where the rows do not fill one batch and dataloader_drop_last is set; UserError for a schedule
    that does not fit the steps.
    """
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * world_size
    total = int(cast(float, train.get("global_batch_size", per_step)))
    if total < 1:
        raise UserError(f"train.global_batch_size: {total}; needs at least 1")
    data_seed = args.seed if args.data_seed is None else args.data_seed
    batches = Batches(rows=rows, global_batch=total, seed=data_seed, drop_last=args.dataloader_drop_last)
    if not batches.steps_per_epoch:
        raise DataError(
            f"train.dataloader_drop_last: {rows} rows do not fill one batch of {total}, and it drops the rest; set it "
            "to false, or lower the batch size"
        )
    steps = (
        args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * batches.steps_per_epoch)
    )
    check_schedule(args, steps)
    return StepPlan(
        batches=batches,
        micro_batch=min(args.per_device_train_batch_size, math.ceil(total / world_size)),
        steps=steps,
        log_every=_step_interval(args.logging_steps, steps)
        if "logging_steps" in train
        else max(1, steps // CURVE_LINES),
        save_every=_step_interval(args.save_steps, steps) if "save_steps" in train else None,
        warmup=args.get_warmup_steps(steps),
        chunked_loss=train.get("chunked_loss") is not False,
    )


def plan_to_rung(plan: StepPlan, rung: Rung | None) -> StepPlan:
    """The plan of the stage up to the rung; rungs in items are scored after the whole run, so their stage is all."""
    if rung is None or rung.last or rung.unit == "items":
        return plan
    steps = {
        "share": rung.budget * plan.steps,
        "steps": rung.budget,
        "rows": rung.budget / plan.batches.global_batch,
    }[rung.unit]
    # 1e-9: a third of 9 steps is 3, although 1/3 * 9 may round to more than 3.
    return replace(plan, stage_end=min(plan.steps, max(1, math.ceil(steps - 1e-9))))


def build_optimizer(
    args: transformers.TrainingArguments,
    model: torch.nn.Module,
    *,
    momentum: float | None,
    steps: int,
    b_ratio: float | None = None,
    sharded: bool = False,
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Optimizer and schedule of the trainable parameters; no weight decay for biases and norms, as in the Trainer.

    `b_ratio`: the learning rate of LoRA's B matrices over that of the others (LoRA+); None: 1. `sharded`: the
    parameters are shards of those of several ranks.
    Raises: UserError if the optimizer's package is not installed, for an argument that it does not accept, or if it
    cannot update shards.
    """
    kind, options = _optimizer_class(args, model)
    if sharded and not kind.__module__.startswith("torch.optim"):
        raise UserError(
            f"train.optim: {args.optim.value} is not known to update the shards of several ranks (train.method: full); "
            "write one of torch, such as adamw_torch, sgd, adagrad or rmsprop, or one rank"
        )
    if momentum is not None:
        options["momentum"] = momentum
    decaying = set(
        transformers.Trainer.get_decay_parameter_names(None, model)
    )  # the method uses only the model
    parameters = trainable_parameters(model)
    groups = [
        {"params": [p for n, p in parameters.items() if n in decaying], "weight_decay": args.weight_decay},
        {"params": [p for n, p in parameters.items() if n not in decaying], "weight_decay": 0.0},
    ]
    if b_ratio is not None:
        groups = [part for group in groups for part in _by_matrix(group, parameters, args, b_ratio)]
    try:
        optimizer = kind([group for group in groups if group["params"]], **options)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"train.optim: {args.optim.value} does not accept its arguments ({error}); see optim_args"
        ) from error
    return optimizer, _schedule(args, optimizer, steps=steps)


def _by_matrix(
    group: Mapping[str, Any],
    parameters: Mapping[str, torch.nn.Parameter],
    args: transformers.TrainingArguments,
    ratio: float,
) -> Iterator[dict[str, Any]]:
    """The group without LoRA's B matrices, and those with their own learning rate.

    Source: Hayou, Ghosh, Yu: LoRA+ (2024), arXiv:2402.12354.
    """
    of_b = {id(one) for name, one in parameters.items() if ".lora_B." in name or ".lora_embedding_B" in name}
    for is_b, rate in ((False, args.learning_rate), (True, args.learning_rate * ratio)):
        yield {**group, "params": [p for p in group["params"] if (id(p) in of_b) == is_b], "lr": rate}


def _optimizer_class(
    args: transformers.TrainingArguments, model: torch.nn.Module
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The class of train.optim, and its arguments by name.

    Raises: UserError if its package is not installed.
    """
    try:
        kind, options = transformers.Trainer.get_optimizer_cls_and_kwargs(args, model)
    except (ImportError, ValueError) as error:
        raise UserError(f"train.optim: {args.optim.value}: {error}") from error
    return kind, options


def _schedule(
    args: transformers.TrainingArguments, optimizer: torch.optim.Optimizer, *, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate schedule.

    Raises: UserError for an argument that it does not accept.
    """
    try:
        return transformers.get_scheduler(
            args.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,
        )
    except (TypeError, ValueError) as error:
        kind = args.lr_scheduler_type.value
        raise UserError(f"train.lr_scheduler_kwargs: {kind} does not accept them ({error})") from error


def _step_interval(steps: float, total: int) -> int:
    """The interval in steps; a value below 1 is a share of all steps."""
    return max(1, math.ceil(steps * total) if steps < 1 else int(steps))

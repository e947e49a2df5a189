"""From a base and rows to a trained, checked and saved adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import peft
import torch
import transformers
from transformers.integrations.neftune import neftune_post_forward_hook

from hpotune.config.schema.study_config import Json
from hpotune.finetune.distributed.fsdp import shard
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model import adapter
from hpotune.finetune.output import Report
from hpotune.finetune.training import checkpoint, sanity_checks
from hpotune.finetune.training.checkpoint import Learner, Progress
from hpotune.finetune.training.loss import Row
from hpotune.finetune.training.optimizer import Plan, arguments, build, plan, reaching
from hpotune.finetune.training.training_loop import Doors, train
from hpotune.finetune.trial_errors import UserError
from hpotune.records.trial import TrialSpec

TAIL = 0.1  # share of the steps that final_train_loss is the mean of


def fit(
    base: torch.nn.Module,
    rows: Sequence[Row],
    spec: TrialSpec,
    *,
    pad_id: int,
    ranks: Ranks,
    report: Report,
    stop: Callable[[], bool],
) -> peft.PeftModel:
    """The base with its trained adapter, which stands on disk too; goes on from a checkpoint if there is one.

    Raises: TrialError where a truth check fails or the training diverges; Paused after a signal.
    """
    folder = Path(spec.folder) / "checkpoint"
    args = arguments(spec.point.train, seed=spec.seed, folder=Path(spec.folder))
    whole = plan(args, spec.point.train, rows=len(rows), world_size=ranks.world_size)
    steps = reaching(whole, spec.rung)
    with report.phase("check"):
        model = _prepared(base, rows, spec, seed=args.seed, pad_id=pad_id, ranks=ranks, report=report)
    _switch_on(model.get_base_model(), args)
    momentum = spec.point.train.get("sgd_momentum")
    optimizer, scheduler = build(args, model, momentum=momentum, steps=steps.steps)
    learner = Learner(model=model, optimizer=optimizer, scheduler=scheduler)
    before = adapter.copy_of(model)
    mark = checkpoint.fingerprint(spec, global_batch=steps.batches.global_batch)
    line = checkpoint.lineage(spec, global_batch=steps.batches.global_batch)
    progress = checkpoint.begin(folder, learner, mark=mark, parent=spec.parent, line=line, ranks=ranks)
    report.cut_curve(progress.step)
    report.earlier_s = progress.process_seconds

    def save() -> None:
        progress.process_seconds = report.earlier_s + report.clock() - report.started
        with report.phase("checkpoint"):
            checkpoint.save(folder, learner, progress, mark=mark, line=line, ranks=ranks)

    doors = Doors(save=save, log=report.curve, stop=stop)
    with report.phase("train"):
        train(learner, rows, progress, plan=steps, args=args, pad_id=pad_id, ranks=ranks, doors=doors)
    report.metrics.update(_measured(model, progress, steps))
    _leave(model, before, rows, spec, pad_id=pad_id, ranks=ranks, report=report)
    return model


def refuse(spec: TrialSpec) -> None:
    """Refuses, before anything is loaded, what fit would refuse late.

    Raises: UserError for a key or a value of `lora` or `train` that a trial cannot honour.
    """
    assert spec.point.model is not None, "a fine-tuning trial has a model"
    adapter.lora_config(spec.point.lora, task=spec.point.model.task)
    arguments(spec.point.train, seed=spec.seed, folder=Path(spec.folder))


def _prepared(
    base: torch.nn.Module,
    rows: Sequence[Row],
    spec: TrialSpec,
    *,
    seed: int,
    pad_id: int,
    ranks: Ranks,
    report: Report,
) -> peft.PeftModel:
    """The base with a fresh adapter, sharded, and the identity check made."""
    assert spec.point.model is not None, "a fine-tuning trial has a model"
    start = adapter.start_of(spec.point.lora)
    dtype = next(base.parameters()).dtype
    config = adapter.lora_config(spec.point.lora, task=spec.point.model.task)
    if config.layer_replication and ranks.world_size > 1:
        raise UserError(
            "lora.layer_replication: layers that share weights cannot be sharded; use one rank a trial"
        )
    # A start that changes the base can only be compared with what the base was before.
    changes = start in ("compensated", "quantised")
    original = (
        sanity_checks.fixed_loss(base, rows, pad_id=pad_id) if changes and spec.checks.identity else 0.0
    )
    model = adapter.attach(base, config, seed=seed, ranks=ranks)
    share = shard(model.get_base_model(), ranks, whole=adapter.weights(model).values())
    report.metrics["base_share_per_rank"] = share
    if spec.checks.identity:
        fresh = sanity_checks.fixed_loss(model, rows, pad_id=pad_id)
        if not changes:
            with model.disable_adapter():
                original = sanity_checks.fixed_loss(model, rows, pad_id=pad_id)
        report.checks["identity"] = sanity_checks.check_identity(
            original, fresh, start=start, dtype=dtype, ranks=ranks
        )
    return model


def _switch_on(base: torch.nn.Module, args: transformers.TrainingArguments) -> None:
    """What the point asks of the base while it trains."""
    if args.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    if args.neftune_noise_alpha is not None:
        embeddings = base.get_input_embeddings()
        embeddings.neftune_noise_alpha = args.neftune_noise_alpha
        embeddings.register_forward_hook(neftune_post_forward_hook)


def _measured(model: torch.nn.Module, progress: Progress, steps: Plan) -> dict[str, Json]:
    losses, seconds = progress.losses, max(progress.train_seconds, 1e-9)
    last = losses[-max(1, round(TAIL * len(losses))) :]
    return {
        "train_loss": sum(losses) / len(losses),
        "final_train_loss": sum(last) / len(last),
        "steps": progress.step,
        **({} if steps.until is None else {"warmup_steps": steps.warmup}),
        "global_batch_size": steps.batches.global_batch,
        "trainable_parameters": sum(p.numel() for p in adapter.trainable(model).values()),
        "train_seconds": seconds,
        "samples_per_second": progress.rows / seconds,
        "tokens_per_second": progress.tokens / seconds,
    }


def _leave(
    model: peft.PeftModel,
    before: dict[str, torch.Tensor],
    rows: Sequence[Row],
    spec: TrialSpec,
    *,
    pad_id: int,
    ranks: Ranks,
    report: Report,
) -> None:
    """Checks the trained adapter and writes it."""
    folder = Path(spec.folder) / "adapter"
    if spec.checks.moved:
        with report.phase("check"):
            report.checks["moved"] = sanity_checks.check_moved(model, before, ranks=ranks)
    with report.phase("save"):
        adapter.save(model, folder, ranks)
    if spec.checks.reload:
        with report.phase("check"):
            report.checks["reload"] = sanity_checks.check_reload(
                model, folder, rows, pad_id=pad_id, ranks=ranks
            )

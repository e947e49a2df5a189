"""From a base model and rows to a trained, checked and saved adapter."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import peft
import torch
import transformers
from transformers.integrations.neftune import neftune_post_forward_hook

from hpotune.config.yaml_source import Value
from hpotune.finetune.distributed.fsdp import shard_base
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model import adapter
from hpotune.finetune.model.base_model import BaseModel
from hpotune.finetune.model.labels import write_labels
from hpotune.finetune.output import TrialOutput
from hpotune.finetune.training import checkpoint, sanity_checks
from hpotune.finetune.training.checkpoint import Progress, TrainingState
from hpotune.finetune.training.live_memory import PeakMemory
from hpotune.finetune.training.loss import Row
from hpotune.finetune.training.memory_choice import MemoryChoice, record_peak
from hpotune.finetune.training.optimizer import (
    StepPlan,
    build_optimizer,
    plan_to_rung,
    step_plan,
    training_arguments,
)
from hpotune.finetune.training.training_loop import LoopCallbacks, train
from hpotune.finetune.trial_errors import UserError
from hpotune.records.trial import TrialSpec

FreshBase = Callable[[int], BaseModel]
"""Loads the base model; its argument is the seed of the weights that are not in the checkpoint."""
FINAL_SHARE = 0.1  # last share of the steps, over which final_train_loss is the mean


def train_adapter(
    fresh_base: FreshBase,
    rows: Sequence[Row],
    spec: TrialSpec,
    *,
    labels: Sequence[str] | None,
    pad_id: int,
    ranks: Ranks,
    output: TrialOutput,
    stop_requested: Callable[[], bool],
    memory: MemoryChoice | None = None,
) -> peft.PeftModel:
    """Train an adapter, from its checkpoint if there is one, save it, and return the model to be scored.

    With checks.reload that is a fresh base model with the saved adapter, which takes the trained model's memory: what
    is scored is what is saved. `fresh_base(seed)` loads the base model; `seed` draws the weights that are not in its
    checkpoint. `labels`: the names of the classes, saved with the adapter; None for a language model. `memory`: what
    `auto` values stand for; None: there is none.

    Raises: TrialError if a sanity check fails or the training diverges; Paused after a signal.
    """
    folder = Path(spec.folder) / "adapter"
    model = _train_and_save(
        fresh_base(spec.seed),
        rows,
        spec,
        labels=labels,
        pad_id=pad_id,
        ranks=ranks,
        output=output,
        stop_requested=stop_requested,
        memory=memory,
    )
    if not spec.checks.reload:
        return model
    with output.phase("check"):
        before = sanity_checks.fixed_batch_loss(model, rows, pad_id=pad_id)
        converted = adapter.is_convertible(model.peft_config["default"])
        del model
        gc.collect()  # modules refer to each other in circles; without this, two base models would be in memory
    fresh = fresh_base(spec.seed + 1)
    base = fresh.module
    with output.phase("check"):
        dtype = next(base.parameters()).dtype
        model = adapter.attach_saved_adapter(base, folder, ranks=ranks)
        parameters = adapter.adapter_parameters(model).values()
        shard_base(base, ranks, replicated=parameters, when_sharded=fresh.when_sharded)
        disk = sanity_checks.fixed_batch_loss(model, rows, pad_id=pad_id)
        output.checks["reload"] = sanity_checks.check_reload(
            before, disk, folder, converted=converted, dtype=dtype, ranks=ranks
        )
    return model


def load_trained(
    fresh_base: FreshBase, folder: Path, *, seed: int, ranks: Ranks, output: TrialOutput
) -> peft.PeftModel:
    """A base model with the trained adapter in `folder`, as a trial with checks.reload scores it.

    Raises: UserError where the adapter's file lacks weights.
    """
    fresh = fresh_base(seed + 1)
    base = fresh.module
    model = adapter.attach_saved_adapter(base, folder, ranks=ranks)
    parameters = adapter.adapter_parameters(model)
    lacking = [name for name, one in parameters.items() if not one.isfinite().all()]
    if lacking:
        raise UserError(
            f"{folder}: holds no finite weights of {lacking[0]}; restore it, or train the trial again"
        )
    output.metrics["base_share_per_rank"] = shard_base(
        base, ranks, replicated=parameters.values(), when_sharded=fresh.when_sharded
    )
    return model


def _train_and_save(
    base: BaseModel,
    rows: Sequence[Row],
    spec: TrialSpec,
    *,
    labels: Sequence[str] | None,
    pad_id: int,
    ranks: Ranks,
    output: TrialOutput,
    stop_requested: Callable[[], bool],
    memory: MemoryChoice | None,
) -> peft.PeftModel:
    """The trained model, of which the adapter is saved; optimizer and checkpoint state are released at the return."""
    folder = Path(spec.folder) / "checkpoint"
    chosen = spec.point.train if memory is None else memory.applied(spec.point.train)
    args = training_arguments(chosen, seed=spec.seed, folder=Path(spec.folder))
    whole = step_plan(args, chosen, rows=len(rows), world_size=ranks.world_size)
    plan = plan_to_rung(whole, spec.rung)
    with output.phase("check"):
        model = _attach_adapter(base, rows, spec, seed=args.seed, pad_id=pad_id, ranks=ranks, output=output)
    _enable_training_options(model.get_base_model(), args)
    momentum = cast("float | None", spec.point.train.get("sgd_momentum"))
    optimizer, scheduler = build_optimizer(args, model, momentum=momentum, steps=plan.steps)
    state = TrainingState(model=model, optimizer=optimizer, scheduler=scheduler)
    before = adapter.copy_adapter(model)
    fingerprint = checkpoint.training_fingerprint(spec, global_batch=plan.batches.global_batch)
    lineage = checkpoint.lineage_fingerprint(spec, global_batch=plan.batches.global_batch)
    progress = checkpoint.resume(
        folder, state, fingerprint=fingerprint, parent=spec.parent, lineage=lineage, ranks=ranks
    )
    output.truncate_curve(progress.step)
    output.earlier_process_s = progress.process_seconds

    def save() -> None:
        progress.process_seconds = output.earlier_process_s + output.clock() - output.started
        with output.phase("checkpoint"):
            checkpoint.save_checkpoint(
                folder, state, progress, fingerprint=fingerprint, lineage=lineage, ranks=ranks
            )

    def halved(rows: int) -> None:
        output.ran_out_of_memory = True
        output.metrics["micro_batch"] = rows
        output.add_warning(f"out of memory while training: from now on {rows} rows in a forward pass")

    callbacks = LoopCallbacks(
        save=save,
        log=output.append_curve,
        stop_requested=stop_requested,
        progress=output.progress.count,
        halved=halved,
        peak=None if memory is None else PeakMemory(),
    )
    with output.phase("train"):
        train(state, rows, progress, plan=plan, args=args, pad_id=pad_id, ranks=ranks, callbacks=callbacks)
    if memory is not None and callbacks.peak is not None and callbacks.peak.bytes is not None:
        record_peak(spec, memory, callbacks.peak.bytes, ranks=ranks, output=output)
    output.metrics.update(_training_metrics(model, progress, plan))
    _check_and_save(model, before, spec, labels=labels, ranks=ranks, output=output)
    return model


def check_settings(spec: TrialSpec) -> None:
    """Check `lora` and `train` before anything is loaded.

    Raises: UserError for a key or a value that a trial does not support.
    """
    assert spec.point.model is not None, "a fine-tuning trial has a model"
    adapter.lora_config(spec.point.lora, task=spec.point.model.task)
    training_arguments(spec.point.train, seed=spec.seed, folder=Path(spec.folder))


def _attach_adapter(
    base_model: BaseModel,
    rows: Sequence[Row],
    spec: TrialSpec,
    *,
    seed: int,
    pad_id: int,
    ranks: Ranks,
    output: TrialOutput,
) -> peft.PeftModel:
    """The sharded base model with a new adapter, after the identity check."""
    assert spec.point.model is not None, "a fine-tuning trial has a model"
    base = base_model.module
    init = adapter.adapter_init(spec.point.lora)
    dtype = next(base.parameters()).dtype
    config = adapter.lora_config(
        spec.point.lora, task=spec.point.model.task, new_modules=base_model.new_modules
    )
    if config.layer_replication and ranks.world_size > 1:
        raise UserError(
            "lora.layer_replication: layers that share weights cannot be sharded; use one rank a trial"
        )
    # An initialisation that changes the base model can only be compared with the base model before it.
    changes_base = init in ("compensated", "quantised")
    original = (
        sanity_checks.fixed_batch_loss(base, rows, pad_id=pad_id)
        if changes_base and spec.checks.identity
        else 0.0
    )
    model = adapter.attach_adapter(base, config, seed=seed, ranks=ranks)
    output.metrics["base_share_per_rank"] = shard_base(
        model.get_base_model(),
        ranks,
        replicated=adapter.adapter_parameters(model).values(),
        when_sharded=base_model.when_sharded,
    )
    if spec.checks.identity:
        fresh = sanity_checks.fixed_batch_loss(model, rows, pad_id=pad_id)
        if not changes_base:
            with model.disable_adapter():
                original = sanity_checks.fixed_batch_loss(model, rows, pad_id=pad_id)
        output.checks["identity"] = sanity_checks.check_identity(
            original, fresh, init=init, dtype=dtype, ranks=ranks
        )
    return model


def _enable_training_options(base: torch.nn.Module, args: transformers.TrainingArguments) -> None:
    """Enable gradient checkpointing and NEFTune noise in the base model if the point asks for them."""
    if args.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    if args.neftune_noise_alpha is not None:
        embeddings = base.get_input_embeddings()
        embeddings.neftune_noise_alpha = args.neftune_noise_alpha
        embeddings.register_forward_hook(neftune_post_forward_hook)


def _training_metrics(model: torch.nn.Module, progress: Progress, plan: StepPlan) -> dict[str, Value]:
    losses, seconds = progress.losses, max(progress.train_seconds, 1e-9)
    final = losses[-max(1, round(FINAL_SHARE * len(losses))) :]
    return {
        "train_loss": sum(losses) / len(losses),
        "final_train_loss": sum(final) / len(final),
        "steps": progress.step,
        **({} if plan.stage_end is None else {"warmup_steps": plan.warmup}),
        "global_batch_size": plan.batches.global_batch,
        "trainable_parameters": sum(p.numel() for p in adapter.trainable_parameters(model).values()),
        "train_seconds": seconds,
        "samples_per_second": progress.rows / seconds,
        "tokens_per_second": progress.tokens / seconds,
    }


def _check_and_save(
    model: peft.PeftModel,
    before: dict[str, torch.Tensor],
    spec: TrialSpec,
    *,
    labels: Sequence[str] | None,
    ranks: Ranks,
    output: TrialOutput,
) -> None:
    """Check the trained adapter, and save it with the names of its classes."""
    folder = Path(spec.folder) / "adapter"
    if spec.checks.moved:
        with output.phase("check"):
            output.checks["moved"] = sanity_checks.check_moved(model, before, ranks=ranks)
    with output.phase("save"):
        if ranks.is_main:
            folder.mkdir(exist_ok=True)
            write_labels(folder, labels)
        adapter.save_adapter(model, folder, ranks, initial=before)

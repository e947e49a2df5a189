"""From a base model and rows to a trained, checked and saved adapter."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import peft
import torch

from hpotune.config.training_method import trains_whole
from hpotune.finetune.distributed.fsdp import shard_base
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model import adapter
from hpotune.finetune.model.base_model import BaseModel
from hpotune.finetune.model.labels import write_labels
from hpotune.finetune.model.quantized_base import check_quantization
from hpotune.finetune.output import TrialOutput
from hpotune.finetune.training import sanity_checks
from hpotune.finetune.training.optimizer import training_arguments
from hpotune.finetune.training.packing import check_packing
from hpotune.finetune.training.training_run import TrainingRun
from hpotune.finetune.trial_errors import UserError
from hpotune.records.trial import TrialSpec

FreshBase = Callable[[int], BaseModel]
"""Loads the base model; its argument is the seed of the weights that are not in the checkpoint."""


def train_adapter(fresh_base: FreshBase, run: TrainingRun) -> peft.PeftModel:
    """Train an adapter, from its checkpoint if there is one, save it, and return the model to be scored.

    With checks.reload that is a fresh base model with the saved adapter, which takes the trained model's memory: what
    is scored is what is saved. `fresh_base(seed)` loads the base model; `seed` draws the weights that are not in its
    checkpoint.

    Raises: TrialError if a sanity check fails or the training diverges; Paused after a signal.
    """
    spec, rows, pad_id, ranks, output = run.spec, run.rows, run.pad_id, run.ranks, run.output
    folder = Path(spec.folder) / "adapter"
    model = _train_and_save(fresh_base(spec.seed), run)
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


def _train_and_save(base: BaseModel, run: TrainingRun) -> peft.PeftModel:
    """The trained model, of which the adapter is saved."""
    with run.output.phase("check"):
        model = _attach_adapter(base, run, seed=run.args.seed)
    before = adapter.copy_adapter(model)
    run.train(model, model.get_base_model(), whole=False)
    _check_and_save(model, before, run)
    return model


def check_settings(spec: TrialSpec) -> None:
    """Check `lora` and `train` before anything is loaded.

    Raises: UserError for a key or a value that a trial does not support.
    """
    assert spec.point.model is not None, "a fine-tuning trial has a model"
    check_quantization(spec.point.model, {} if trains_whole(spec.point.train) else spec.point.lora)
    if not trains_whole(spec.point.train):
        adapter.lora_config(spec.point.lora, task=spec.point.model.task)
    training_arguments(spec.point.train, seed=spec.seed, folder=Path(spec.folder))
    check_packing(spec.point.model, spec.point.train)


def _attach_adapter(base_model: BaseModel, run: TrainingRun, *, seed: int) -> peft.PeftModel:
    """The sharded base model with a new adapter, after the identity check."""
    spec, rows, pad_id, ranks, output = run.spec, run.rows, run.pad_id, run.ranks, run.output
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


def _check_and_save(model: peft.PeftModel, before: dict[str, torch.Tensor], run: TrainingRun) -> None:
    """Check the trained adapter, and save it with the names of its classes."""
    spec, ranks, output = run.spec, run.ranks, run.output
    folder = Path(spec.folder) / "adapter"
    if spec.checks.moved:
        with output.phase("check"):
            output.checks["moved"] = sanity_checks.check_moved(model, before, ranks=ranks)
    with output.phase("save"):
        if ranks.is_main:
            folder.mkdir(exist_ok=True)
            write_labels(folder, run.labels)
        adapter.save_adapter(model, folder, ranks, initial=before)

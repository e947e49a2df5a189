"""From a base model and rows to a trained, checked and saved whole model (train.method: full).

The weights, their gradients and the optimizer's state are float32 (float64 with model.dtype: float64) and sharded over
the ranks; model.dtype is that of the computation. What is saved, and scored, has model.dtype, as the base model.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.distributed.fsdp import FSDPModule

from hpotune.config.training_method import MODEL_FOLDER
from hpotune.config.yaml_source import Value
from hpotune.finetune.distributed.fsdp import (
    group_of_one,
    local_part,
    shard_base,
    shard_trained,
    whole_tensor,
)
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model.base_model import BaseModel, base_dtype
from hpotune.finetune.model.labels import base_config, write_labels
from hpotune.finetune.output import TrialOutput
from hpotune.finetune.training import sanity_checks
from hpotune.finetune.training.training_run import TrainingRun
from hpotune.finetune.trial_errors import NotFinite, SanityCheckFailure, UserError
from hpotune.finetune.warm.shared_base import checksum
from hpotune.workspace.atomic_files import set_usual_mode

FreshBase = Callable[[int], BaseModel]
"""Loads the base model in the dtype that is trained; its argument is the seed of weights that no checkpoint holds."""
SavedModel = Callable[[Path], torch.nn.Module]
"""Loads a saved model, frozen, in model.dtype."""


def train_full(fresh_base: FreshBase, saved_model: SavedModel, run: TrainingRun) -> torch.nn.Module:
    """Train all weights, from the checkpoint if there is one, save the model, and return it as read back from disk.

    Raises: TrialError if a sanity check fails or the training diverges; Paused after a signal.
    """
    spec, ranks, output = run.spec, run.ranks, run.output
    assert spec.point.model is not None, "a fine-tuning trial has a model"
    folder = Path(spec.folder) / MODEL_FOLDER
    dtype = base_dtype(spec.point.model, ranks.device)
    with group_of_one(ranks, needed=dtype in (torch.bfloat16, torch.float16)):
        trained = _train_and_save(fresh_base(spec.seed), run, folder, dtype)
    gc.collect()  # modules refer to each other in circles; without this, two models would be in memory
    model = load_whole(saved_model, folder, ranks=ranks, output=None)
    if spec.checks.reload:
        with output.phase("check"):
            disk = sanity_checks.fixed_batch_loss(model, run.rows, pad_id=run.pad_id)
            output.checks["reload"] = sanity_checks.check_reload(
                trained, disk, folder, converted=False, dtype=dtype, ranks=ranks
            )
    return model


def load_whole(
    saved_model: SavedModel, folder: Path, *, ranks: Ranks, output: TrialOutput | None
) -> torch.nn.Module:
    """The saved model, sharded for scoring.

    Raises: UserError where weights are not finite.
    """
    model = saved_model(folder)
    lacking = [name for name, one in model.named_parameters() if not one.isfinite().all()]
    if lacking:
        raise UserError(
            f"{folder}: holds no finite weights of {lacking[0]}; restore it, or train the trial again"
        )
    share = shard_base(model, ranks, replicated=())
    if output is not None:
        output.metrics["base_share_per_rank"] = share
    return model


def _train_and_save(base: BaseModel, run: TrainingRun, folder: Path, dtype: torch.dtype) -> float:
    """Train and save the model, and return its loss on the fixed batch; all else is released at the return."""
    model, ranks, output, spec = base.module, run.ranks, run.output, run.spec
    check_trainable(model, ranks)
    model.requires_grad_(True)
    output.metrics["base_share_per_rank"] = shard_trained(model, ranks, dtype=dtype)
    before = _checksums(model)
    run.train(model, model, whole=True)
    if spec.checks.moved:
        with output.phase("check"):
            output.checks["moved"] = check_moved(model, before, ranks=ranks)
    with output.phase("save"):
        save_whole(model, folder, run, dtype=dtype)
    with output.phase("check"):
        return (
            sanity_checks.fixed_batch_loss(model, run.rows, pad_id=run.pad_id) if spec.checks.reload else 0.0
        )


def check_trainable(model: torch.nn.Module, ranks: Ranks) -> None:
    """Check that every rank will have gradients of the same weights, as their sums require.

    Raises: UserError for a quantized model, and for experts that are modules of their own on several ranks.
    """
    if any(not one.is_floating_point() for one in model.parameters()):
        raise UserError(
            "train.method: full needs plain weights, and those of this model are quantized; write method: lora"
        )
    lists = [name for name, one in model.named_modules() if isinstance(one, torch.nn.ModuleList)]
    experts = next((name for name in lists if name.split(".")[-1] == "experts"), None)
    if experts is not None and ranks.world_size > 1:
        raise UserError(
            f"train.method: full with several ranks needs experts that are one tensor, and {experts} are modules, of "
            "which a rank may use others than the next; write method: lora, or one rank"
        )


def check_moved(model: torch.nn.Module, before: Mapping[str, int], *, ranks: Ranks) -> dict[str, Value]:
    """Check that training left all weights finite, and changed some.

    Raises: NotFinite, SanityCheckFailure.
    """
    odd = [name for name, one in model.named_parameters() if not local_part(one.data).isfinite().all()]
    if any_odd := [name for names in ranks.all_gather_object(odd) for name in names]:
        raise NotFinite(f"moved: {any_odd[0]} is not finite after training; lower train.learning_rate")
    changed = {name for name, number in _checksums(model).items() if number != before[name]}
    moved = len(set().union(*ranks.all_gather_object(changed)))
    if not moved:
        raise SanityCheckFailure(
            "moved: training did not change the model; raise train.learning_rate or the steps"
        )
    return {"ok": True, "changed_tensors": moved, "tensors": len(before)}


def _checksums(model: torch.nn.Module) -> dict[str, int]:
    """Of what this rank holds of each weight."""
    return {name: checksum([local_part(one.data)]) for name, one in model.named_parameters()}


def save_whole(model: torch.nn.Module, folder: Path, run: TrainingRun, *, dtype: torch.dtype) -> None:
    """Write the model as transformers loads it, in `dtype`, complete or not at all. A collective.

    Rank 0 holds all weights in the host's memory meanwhile.
    """
    assert run.spec.point.model is not None, "a fine-tuning trial has a model"
    if isinstance(model, FSDPModule):
        model.reshard()
    parameters = dict(model.named_parameters())
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = {name: one for name, one in model.state_dict().items() if name not in known}
    state: dict[str, torch.Tensor] = {}
    for name, tensor in (parameters | buffers).items():
        whole = whole_tensor(tensor.detach())
        if run.ranks.is_main:
            state[name] = whole.to("cpu", dtype if name in parameters else whole.dtype, copy=True)
    if run.ranks.is_main:
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _make_valid(model)
        model.save_pretrained(unfinished, state_dict=state)
        write_labels(unfinished, run.labels)
        _describe(unfinished / "config.json", run, dtype)
        for path in (unfinished, *unfinished.iterdir()):
            set_usual_mode(path)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    run.ranks.barrier()


def _make_valid(model: torch.nn.Module) -> None:
    """Sampling values without do_sample, as some base models have, cannot be saved: they are what do_sample reads."""
    settings = getattr(model, "generation_config", None)
    if settings is None:
        return
    try:
        settings.validate(strict=True)
    except ValueError:
        settings.do_sample = True


def _describe(file: Path, run: TrainingRun, dtype: torch.dtype) -> None:
    """Undo in config.json what a trial sets for itself: the cache is off in training, and a padding token is needed."""
    assert run.spec.point.model is not None, "a fine-tuning trial has a model"
    base = base_config(run.spec.point.model)
    config: dict[str, Value] = json.loads(file.read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    config["use_cache"] = bool(getattr(base, "use_cache", True))
    if run.labels is None:
        config["pad_token_id"] = base.pad_token_id
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

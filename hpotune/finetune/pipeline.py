"""The sequence of one trial: data, base model, training, losses, scores, result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from hpotune.config.lm_eval_tasks import overlap, task_index
from hpotune.config.schema.study_config import DataConfig, ModelConfig, PointConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.distributed.fsdp import shard_base
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.inputs import TrialInputs, load_inputs
from hpotune.finetune.model.base_model import BaseModel, load_base
from hpotune.finetune.model.labels import base_config
from hpotune.finetune.model.model_checks import check_model, token_extent
from hpotune.finetune.output import TrialOutput, measured_cost
from hpotune.finetune.scoring.expected_scores import objective_value
from hpotune.finetune.scoring.item_scores import save_rung_items
from hpotune.finetune.scoring.lm_eval import score_tasks
from hpotune.finetune.scoring.task_requests import BuiltTasks, build_requests, requested_tasks
from hpotune.finetune.training import checkpoint
from hpotune.finetune.training.adapter_training import check_settings, train_adapter
from hpotune.finetune.training.loss import autocast, mean_loss
from hpotune.finetune.training.optimizer import training_arguments
from hpotune.finetune.training.pass_limit import PassLimit, pass_limit
from hpotune.finetune.trial_errors import NotFinite, Paused, UserError
from hpotune.records.trial import TrialResult, TrialSpec

BASELINE_ROWS = 256  # of the training rows, for the train_loss of the base model


def run_trial(
    spec: TrialSpec, *, ranks: Ranks, output: TrialOutput, stop_requested: Callable[[], bool]
) -> TrialResult:
    """Train (not for a baseline) and score the trial, and return its result.

    Raises: TrialError; Paused after a signal, with a checkpoint.
    """
    model_config, data_config = spec.point.model, spec.point.data
    assert model_config is not None, "a fine-tuning trial has a model"
    assert data_config is not None, "a fine-tuning trial has data"
    spec = spec_at_rung(spec)
    check_tasks(spec.point)
    if spec.kind == "trial":
        check_settings(spec)
    with output.phase("data"):
        inputs = _load_inputs(spec, model_config, data_config, output)
        _check_model(spec, inputs, output)
        built = _build_tasks(spec, inputs, output)
    _pause_if_requested(stop_requested, ranks)

    def fresh_base(seed: int) -> BaseModel:
        with output.phase("load"):
            base = load_base(
                model_config, labels=inputs.labels, pad_id=inputs.pad_id, device=ranks.device, seed=seed
            )
            if ranks.world_size == 1:
                base.module.to(ranks.device)
        _pause_if_requested(stop_requested, ranks)
        return base

    model: torch.nn.Module
    if spec.kind == "baseline":
        model = fresh_base(spec.seed).module
        output.metrics["base_share_per_rank"] = shard_base(model, ranks, replicated=())
    else:
        model = train_adapter(
            fresh_base,
            inputs.train,
            spec,
            labels=inputs.labels,
            pad_id=inputs.pad_id,
            ranks=ranks,
            output=output,
            stop_requested=stop_requested,
        )
    _pause_if_requested(stop_requested, ranks)
    with output.phase("score"):
        limit = _pass_limit(model, inputs, spec)
        output.metrics.update(_losses(model, inputs, spec, limit, ranks))
        _pause_if_requested(stop_requested, ranks)
        with autocast(model, ranks.device):  # the precision in which the adapter was trained
            scores = score_tasks(
                model,
                inputs.tokenizer,
                built=built,
                limit=limit,
                ranks=ranks,
                folder=Path(spec.folder),
                stop_requested=stop_requested,
            )
        output.metrics.update(scores)
    output.metrics.update(measured_cost(output, ranks))
    values, stderrs = _objective_values(spec, output.metrics)
    if spec.rung is None or spec.rung.last:
        checkpoint.delete_checkpoint(Path(spec.folder) / "checkpoint", ranks)
    else:
        save_rung_items(Path(spec.folder), spec.rung.index, ranks)
    rung = spec.rung.index if spec.rung else None
    return output.result("finished").model_copy(update={"values": values, "stderrs": stderrs, "rung": rung})


def spec_at_rung(spec: TrialSpec) -> TrialSpec:
    """The spec with the scores that a rung before the last needs: the objectives, without the recorded tasks."""
    rung, score = spec.rung, spec.point.score
    if rung is None or rung.last:
        return spec
    update: dict[str, object] = {"record": []}
    if rung.unit == "items":
        items = {"limit": int(rung.budget)}
        update["objective"] = [o.model_copy(update=items) if o.task else o for o in score.objective]
    point = spec.point.model_copy(update={"score": score.model_copy(update=update)})
    return spec.model_copy(update={"point": point})


def check_tasks(point: PointConfig) -> None:
    """Check that the model can answer the tasks that the trial scores, and that none of them is sealed.

    Raises: UserError if a sealed task shares items with one that is scored, which `check --static` finds by the names
    only where lm-eval is not installed.
    """
    assert point.model is not None, "a fine-tuning trial has a model"
    tasks = [one.task for one in requested_tasks(point.score)]
    if tasks and point.model.task != "causal_lm":
        raise UserError(
            f"score: {tasks[0]} needs task: causal_lm; {point.model.task} has eval_loss and eval_accuracy"
        )
    sealed, index = [one.task for one in point.score.test], task_index(point.score.include_path)
    shared = overlap(sealed, tasks, index=index) if sealed else []
    if shared:
        raise UserError(shared[0])


def _load_inputs(spec: TrialSpec, model: ModelConfig, data: DataConfig, output: TrialOutput) -> TrialInputs:
    """The trial's inputs; keeps their counts and warnings."""
    prepared = Path(spec.prepared) if spec.prepared is not None else None
    inputs = load_inputs(model, data, data_root=spec.data_root, prepared=prepared)
    both = inputs.split.both
    output.metrics.update(
        train_rows=len(inputs.train),
        validation_rows=len(inputs.validation),
        dropped_rows=len(both.left_out),
        cut_rows=both.cut,
    )
    for warning in inputs.split.warnings:
        output.add_warning(warning)
    return inputs


def _check_model(spec: TrialSpec, inputs: TrialInputs, output: TrialOutput) -> None:
    """Check on the meta device that model, tokenizer, rows and adapter fit together; keep the warnings.

    Raises: UserError.
    """
    assert spec.point.model is not None, "a fine-tuning trial has a model"
    found = check_model(
        spec.point.model,
        [spec.point.lora] if spec.kind == "trial" else [],
        tokenizer=inputs.tokenizer,
        extent=token_extent(row.ids for row in [*inputs.train, *inputs.validation]),
        labels=inputs.labels,
    )
    for warning in found:
        output.add_warning(warning)


def _build_tasks(spec: TrialSpec, inputs: TrialInputs, output: TrialOutput) -> BuiltTasks:
    """The requests of the lm-eval tasks that the trial scores; their warnings are kept.

    Raises: TrialError.
    """
    assert spec.point.model is not None, "a fine-tuning trial has a model"
    assert spec.point.data is not None, "a fine-tuning trial has data"
    built = build_requests(
        requested_tasks(spec.point.score),
        score=spec.point.score,
        prompt=spec.point.data.prompt,
        tokenizer=inputs.tokenizer,
        config=base_config(spec.point.model),
        data_root=spec.data_root,
        home=spec.home,
    )
    for warning in built.warnings:
        output.add_warning(warning)
    return built


def _pass_limit(model: torch.nn.Module, inputs: TrialInputs, spec: TrialSpec) -> PassLimit:
    """How many rows a forward pass of scoring holds: no more logits than one of training."""
    args = training_arguments(spec.point.train, seed=spec.seed, folder=Path(spec.folder))
    return pass_limit(
        model,
        batch_size=spec.point.score.batch_size,
        train_rows=args.per_device_train_batch_size,
        train_tokens=max(len(row.ids) for row in inputs.train),
    )


def _losses(
    model: torch.nn.Module, inputs: TrialInputs, spec: TrialSpec, limit: PassLimit, ranks: Ranks
) -> dict[str, Value]:
    """eval_loss, and eval_accuracy of a classification; for a baseline also the metrics of a training of 0 steps."""
    metrics: dict[str, Value] = {}
    if spec.kind == "baseline":
        first = inputs.train[:BASELINE_ROWS]
        loss = mean_loss(model, first, pad_id=inputs.pad_id, limit=limit, ranks=ranks).loss
        metrics |= {"train_loss": loss, "final_train_loss": loss, "steps": 0, "trainable_parameters": 0}
    if inputs.validation:
        held_out = mean_loss(model, inputs.validation, pad_id=inputs.pad_id, limit=limit, ranks=ranks)
        metrics["eval_loss"] = held_out.loss
        if inputs.labels is not None:
            metrics["eval_accuracy"] = held_out.accuracy
    return metrics


def _objective_values(
    spec: TrialSpec, metrics: Mapping[str, Value]
) -> tuple[list[float], list[float | None]]:
    """The values of the objectives, and their standard errors.

    Raises: UserError for a metric that was not measured, NotFinite for one that is infinite or NaN.
    """
    numbers = {name: number for name, number in metrics.items() if isinstance(number, (int, float))}
    pairs = [objective_value(numbers, objective) for objective in spec.point.score.objective]
    for objective, (value, _) in zip(spec.point.score.objective, pairs, strict=True):
        if not math.isfinite(value):
            raise NotFinite(f"{objective.label} is {value}")
    return [value for value, _ in pairs], [error for _, error in pairs]


def _pause_if_requested(stop_requested: Callable[[], bool], ranks: Ranks) -> None:
    """Stop between two phases after a signal to any rank; the checkpoint of the last step, if any, stays.

    Raises: Paused.
    """
    if ranks.any(stop_requested()):
        raise Paused

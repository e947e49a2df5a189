"""The sequence of one trial: data, base, training, losses, scores, result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from hpotune.config.lm_eval_tasks import overlap, task_index
from hpotune.config.schema.study_config import DataConfig, Json, ModelConfig, ScoreConfig
from hpotune.finetune.data import dataset
from hpotune.finetune.distributed.fsdp import shard
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model.base_model import load_base, load_tokenizer
from hpotune.finetune.output import Report, cost
from hpotune.finetune.scoring.item_scores import keep_items
from hpotune.finetune.scoring.lm_eval import score_tasks, value_of, wanted
from hpotune.finetune.training import checkpoint
from hpotune.finetune.training.fit import fit, refuse
from hpotune.finetune.training.loss import Row, autocast, mean
from hpotune.finetune.trial_errors import DataError, NotFinite, Paused, UserError
from hpotune.records.trial import TrialResult, TrialSpec

BASELINE_ROWS = 256  # of the training rows, for the untouched base's train_loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """What stands in memory before the base is loaded."""

    tokenizer: Json
    pad_id: int
    train: list[Row]
    validation: list[Row]
    labels: int | None


def run(spec: TrialSpec, *, ranks: Ranks, report: Report, stop: Callable[[], bool]) -> TrialResult:
    """The trial, trained (a baseline is not) and scored.

    Raises: TrialError; Paused where a signal came and a checkpoint stands.
    """
    model_config, data_config = spec.point.model, spec.point.data
    assert model_config is not None, "a fine-tuning trial has a model"
    assert data_config is not None, "a fine-tuning trial has data"
    spec = scored_at(spec)
    tasks = wanted(spec.point.score)
    if tasks and model_config.task != "causal_lm":
        raise UserError(
            f"score: {tasks[0].task} needs causal_lm; {model_config.task} has eval_loss and eval_accuracy"
        )
    _check_seal(spec.point.score, [one.task for one in tasks])
    if spec.kind == "trial":
        refuse(spec)
    with report.phase("data"):
        ready = _rows(model_config, data_config, spec.data_root, report)
    _pause(stop, ranks)
    with report.phase("load"):
        model = load_base(
            model_config, labels=ready.labels, pad_id=ready.pad_id, device=ranks.device, seed=spec.seed
        )
        if ranks.world_size == 1:
            model.to(ranks.device)
    _pause(stop, ranks)
    if spec.kind == "baseline":
        report.metrics["base_share_per_rank"] = shard(model, ranks, whole=())
    else:
        model = fit(model, ready.train, spec, pad_id=ready.pad_id, ranks=ranks, report=report, stop=stop)
    _pause(stop, ranks)
    with report.phase("score"):
        report.metrics.update(_losses(model, ready, spec, ranks))
        _pause(stop, ranks)
        report.metrics.update(_scores(model, ready, spec, ranks, stop))
    report.metrics.update(cost(report, ranks))
    values, stderrs = _values(spec, report.metrics)
    if spec.rung is None or spec.rung.last:
        checkpoint.remove(Path(spec.folder) / "checkpoint", ranks)
    else:
        keep_items(Path(spec.folder), spec.rung.index, ranks)
    rung = spec.rung.index if spec.rung else None
    return report.result("finished").model_copy(update={"values": values, "stderrs": stderrs, "rung": rung})


def scored_at(spec: TrialSpec) -> TrialSpec:
    """The spec with what a trial on its way is scored on: what chooses, and nothing that is only recorded."""
    rung, score = spec.rung, spec.point.score
    if rung is None or rung.last:
        return spec
    update: dict[str, Json] = {"record": []}
    if rung.unit == "items":
        items = {"limit": int(rung.budget)}
        update["objective"] = [o.model_copy(update=items) if o.task else o for o in score.objective]
    point = spec.point.model_copy(update={"score": score.model_copy(update=update)})
    return spec.model_copy(update={"point": point})


def _check_seal(score: ScoreConfig, open_tasks: list[str]) -> None:
    """Asks again what `hpotune check` asked: a login node without lm-eval knows the names only.

    Raises: UserError where a sealed task shares items with one that is scored.
    """
    shared = overlap(score.test, open_tasks, index=task_index(score.include_path)) if score.test else []
    if shared:
        raise UserError(shared[0])


def _rows(model: ModelConfig, config: DataConfig, data_root: str | None, report: Report) -> Ready:
    labelled = model.task == "sequence_classification"
    tokenizer = load_tokenizer(model)
    parts = dataset.read(config, data_root=data_root, labelled=labelled)
    train = dataset.tokenise(parts.train, config, tokenizer, labelled=labelled)
    held = dataset.tokenise(parts.validation, config, tokenizer, labelled=labelled)
    report.metrics.update(
        train_rows=len(train.rows),
        validation_rows=len(held.rows),
        dropped_rows=train.dropped + held.dropped,
        cut_rows=train.cut + held.cut,
    )
    if train.dropped + held.dropped:
        report.warn(
            f"{train.dropped + held.dropped} rows left out: data.max_length cut their whole answer away"
        )
    for warning in parts.warnings if labelled else ():
        report.warn(warning)
    return Ready(
        tokenizer=tokenizer,
        pad_id=tokenizer.pad_token_id,
        train=train.rows,
        validation=held.rows,
        labels=_classes(model, parts.labels) if labelled else None,
    )


def _classes(model: ModelConfig, present: int) -> int:
    """Classes of the head.

    Raises: DataError where the rows hold more than model.num_labels.
    """
    if model.num_labels is not None and present > model.num_labels:
        raise DataError(f"model.num_labels: {model.num_labels}, but the rows hold {present} labels; raise it")
    return model.num_labels or max(2, present)


def _losses(model: torch.nn.Module, ready: Ready, spec: TrialSpec, ranks: Ranks) -> dict[str, Json]:
    """eval_loss (and eval_accuracy of classes); of a baseline what a training of no steps would give too."""
    found: dict[str, Json] = {}
    size = spec.point.score.batch_size
    if spec.kind == "baseline":
        first = ready.train[:BASELINE_ROWS]
        found["train_loss"] = mean(model, first, pad_id=ready.pad_id, batch_size=size, ranks=ranks).loss
        found |= {"final_train_loss": found["train_loss"], "steps": 0, "trainable_parameters": 0}
    if ready.validation:
        held = mean(model, ready.validation, pad_id=ready.pad_id, batch_size=size, ranks=ranks)
        found["eval_loss"] = held.loss
        if ready.labels is not None:
            found["eval_accuracy"] = held.accuracy
    return found


def _scores(
    model: torch.nn.Module, ready: Ready, spec: TrialSpec, ranks: Ranks, stop: Callable[[], bool]
) -> dict[str, float]:
    """The numbers of the lm-eval tasks, computed in the precision that the adapter was trained in.

    Raises: Paused.
    """
    scored = spec.point.score
    with autocast(model, ranks.device):
        return score_tasks(
            model,
            ready.tokenizer,
            tasks=wanted(scored),
            score=scored,
            data_root=spec.data_root,
            ranks=ranks,
            folder=Path(spec.folder),
            stop=stop,
        )


def _values(spec: TrialSpec, metrics: dict[str, Json]) -> tuple[list[float], list[float | None]]:
    """The objectives' values with their standard errors.

    Raises: UserError for a metric that was not measured, NotFinite for one that is not a number.
    """
    numbers = {name: number for name, number in metrics.items() if isinstance(number, (int, float))}
    pairs = [value_of(numbers, objective) for objective in spec.point.score.objective]
    for objective, (value, _) in zip(spec.point.score.objective, pairs, strict=True):
        if not math.isfinite(value):
            raise NotFinite(f"{objective.label} is {value}")
    return [value for value, _ in pairs], [error for _, error in pairs]


def _pause(stop: Callable[[], bool], ranks: Ranks) -> None:
    """Ends between two phases where a signal came; the checkpoint of the last step stands.

    Raises: Paused.
    """
    if ranks.any(stop()):
        raise Paused

"""The sequence of one trial: data, base model, training, losses, scores, result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import torch

from hpotune.config.lm_eval_tasks import overlap, task_index
from hpotune.config.schema.study_config import ModelConfig, PointConfig
from hpotune.config.training_method import trains_whole
from hpotune.config.yaml_source import Value
from hpotune.finetune.data.mixture import by_source
from hpotune.finetune.data.stored_sequence import selected
from hpotune.finetune.distributed.fsdp import shard_base
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.inputs import TrialInputs, load_inputs
from hpotune.finetune.model.base_model import BaseModel, load_base
from hpotune.finetune.model.checked_models import checked_key, find_checked
from hpotune.finetune.model.labels import base_config
from hpotune.finetune.model.model_checks import check_model, split_extent
from hpotune.finetune.model.quantized_base import check_ranks
from hpotune.finetune.model.staged_model import staged_model
from hpotune.finetune.output import TrialOutput, measured_cost
from hpotune.finetune.provenance_record import request_hashes, rows_hash
from hpotune.finetune.scoring.answer_settings import ask_with
from hpotune.finetune.scoring.expected_scores import objective_value
from hpotune.finetune.scoring.generation_speed import METRIC, GenerationSpeed
from hpotune.finetune.scoring.item_scores import save_rung_items
from hpotune.finetune.scoring.lm_eval import score_tasks
from hpotune.finetune.scoring.race import Race
from hpotune.finetune.scoring.row_losses import row_losses
from hpotune.finetune.scoring.task_requests import (
    BuiltTasks,
    allow_code,
    build_requests,
    requested_tasks,
    sealed_tasks,
)
from hpotune.finetune.training import checkpoint
from hpotune.finetune.training.adapter_training import check_settings, load_trained, train_adapter
from hpotune.finetune.training.compiled import check_compiled
from hpotune.finetune.training.full_training import load_whole, train_full
from hpotune.finetune.training.loss import autocast, row_lengths
from hpotune.finetune.training.memory_choice import MemoryChoice, memory_choice
from hpotune.finetune.training.optimizer import training_arguments
from hpotune.finetune.training.pass_limit import PassLimit, pass_limit
from hpotune.finetune.training.sanity_checks import check_same_loss
from hpotune.finetune.training.training_run import TrainingRun
from hpotune.finetune.trial_errors import NotFinite, Paused, UserError
from hpotune.finetune.warm.kept import Kept, key_of
from hpotune.finetune.warm.shared_base import needs_own_base, reads_base
from hpotune.records.trial import TrialResult, TrialSpec

UNTRAINED_TOKENS = (
    4096  # of a pass of scoring where nothing is trained: the defaults of a training, 8 rows of 512
)


def run_trial(
    spec: TrialSpec,
    *,
    ranks: Ranks,
    output: TrialOutput,
    stop_requested: Callable[[], bool],
    kept: Kept | None = None,
) -> TrialResult:
    """Train (unless it is a baseline, a trained adapter is given, or there is no data) and score the trial.

    Returns its result.

    `kept`: what the process has from earlier trials and keeps for later ones; None: nothing is kept.

    Raises: TrialError; Paused after a signal, with a checkpoint.
    """
    model_config = spec.point.model
    assert model_config is not None, "a fine-tuning trial has a model"
    spec = spec_at_rung(spec)
    check_tasks(spec.point, sealed=spec.sealed)
    if spec.kind == "trial" and spec.point.trains:
        check_settings(spec)
    check_ranks(model_config, world_size=ranks.world_size)
    check_compiled(spec.point.train, world_size=ranks.world_size)
    with output.phase("data"):
        inputs = _load_inputs(spec, model_config, output, kept)
        _check_model(spec, inputs, output, kept)
        built = _build_tasks(spec, inputs, output, kept)
    trains = spec.kind == "trial" and spec.adapter is None and spec.point.trains
    memory = memory_choice(spec, inputs.train, ranks=ranks, output=output) if trains else None
    _pause_if_requested(stop_requested, ranks)

    staged = cache(partial(staged_model, spec, warn=output.add_warning))
    full = trains_whole(spec.point.train)

    def load(seed: int, config: ModelConfig = model_config, *, whole: bool = full and trains) -> BaseModel:
        return load_base(
            config,
            labels=inputs.labels,
            pad_id=inputs.pad_id,
            device=ranks.device,
            seed=seed,
            on_device=ranks.world_size == 1,
            staged=staged() if config is model_config else None,
            whole=whole,
        )

    def saved_model(folder: Path) -> torch.nn.Module:
        config = model_config.model_copy(update={"path": str(folder), "revision": None})
        with output.phase("load"):
            return load(spec.seed, config, whole=False).module

    lora = spec.point.lora
    own_weights = full or needs_own_base(lora) or (ranks.world_size > 1 and reads_base(lora))
    own = inputs.labels is not None or (spec.kind == "trial" and own_weights)

    def fresh_base(seed: int) -> BaseModel:
        with output.phase("load"):
            base = load(seed) if kept is None else kept.fresh_base(load, seed, own=own)
            torch.manual_seed(seed)  # loading may have drawn numbers, and a kept model draws none
        _pause_if_requested(stop_requested, ranks)
        return base

    model: torch.nn.Module
    if spec.kind == "baseline" or not spec.point.trains:
        base = fresh_base(spec.seed)
        model = base.module
        share = shard_base(model, ranks, replicated=(), when_sharded=base.when_sharded)
        output.metrics["base_share_per_rank"] = share
    elif spec.adapter is not None and full:
        model = load_whole(saved_model, Path(spec.adapter), ranks=ranks, output=output)
    elif spec.adapter is not None:
        model = load_trained(fresh_base, Path(spec.adapter), seed=spec.seed, ranks=ranks, output=output)
    else:
        run = TrainingRun(
            rows=inputs.train,
            spec=spec,
            labels=inputs.labels,
            pad_id=inputs.pad_id,
            ranks=ranks,
            output=output,
            stop_requested=stop_requested,
            memory=memory,
        )
        model = train_full(fresh_base, saved_model, run) if full else train_adapter(fresh_base, run)
    _pause_if_requested(stop_requested, ranks)
    race, speed = _race(spec, output.inputs), GenerationSpeed()
    with output.phase("score", shown="evaluate"):
        limit = _pass_limit(model, inputs, spec, memory)
        output.metrics.update(row_losses(model, inputs, spec, limit, ranks, output.progress))
        if spec.expected_loss is not None and (measured := output.metrics.get("eval_loss")) is not None:
            output.checks["same_model"] = check_same_loss(spec.expected_loss, float(str(measured)))
        _pause_if_requested(stop_requested, ranks)
        with autocast(model, ranks.device):  # the precision in which the adapter was trained
            scores = score_tasks(
                model,
                inputs.tokenizer,
                built=built,
                limit=limit,
                ranks=ranks,
                folder=Path(spec.folder),
                subjects=spec.sealed,
                share_context=spec.point.score.share_context,
                stop_requested=stop_requested,
                progress=output.progress,
                kept_tokens=None if kept is None else kept.tokens,
                race=race,
                first_items=_first_items(spec),
                seed=spec.seed,
                speed=speed,
            )
        output.metrics.update(scores)
        if (per_second := speed.over_all(ranks)) is not None:
            output.metrics[METRIC] = per_second
        if race is not None and race.why_alone:
            output.add_warning(f"score.race: every item was scored: {race.why_alone}")
    if kept is not None and (limit.halved or output.ran_out_of_memory):
        kept.spoiled = f"it ran out of memory while {'scoring' if limit.halved else 'training'}"
    output.metrics.update(measured_cost(output, ranks))
    if spec.sealed:
        output.metrics["items"] = built.items
        values, stderrs = [float(built.items)], list[float | None]([None])
    elif race is not None and race.ended is not None:
        value, error = race.value()
        values, stderrs = [value], [error]
    else:
        values, stderrs = _objective_values(spec, output.metrics)
    if spec.rung is None or spec.rung.last:
        checkpoint.delete_checkpoint(Path(spec.folder) / "checkpoint", ranks)
    else:
        save_rung_items(Path(spec.folder), spec.rung.index, ranks)
    rung = spec.rung.index if spec.rung else None
    ended = race.ended if race is not None else None
    facts = {"values": values, "stderrs": stderrs, "rung": rung, "race": ended}
    return output.result("finished").model_copy(update=facts)


def _race(spec: TrialSpec, requests: Mapping[str, str]) -> Race | None:
    """How the items of the objective are scored in parts; None: at once. `requests`: hashes by task, on rank 0."""
    score = spec.point.score
    if score.race is None or spec.sealed:
        return None
    leader = Path(spec.leader) if spec.leader is not None else None
    return Race(
        objective=score.objective[0],
        error=score.race.error,
        seed=spec.seed,
        leader_file=leader,
        requests=requests,
    )


def _first_items(spec: TrialSpec) -> tuple[int, int] | None:
    """The number of items that are scored at a rung before the last, and the seed of their order; None: all."""
    count, rung = spec.point.score.rung_items, spec.rung
    return None if count is None or rung is None or rung.last else (count, spec.seed)


def spec_at_rung(spec: TrialSpec) -> TrialSpec:
    """The spec with the scores that a rung before the last needs: the objectives, without the recorded tasks.

    Trials race at the last rung only: before it, they are compared at equal numbers of items.
    """
    rung, score = spec.rung, spec.point.score
    if rung is None or rung.last:
        return spec
    update: dict[str, object] = {"record": [], "race": None}
    if rung.unit == "items":
        items = {"limit": int(rung.budget)}
        update["objective"] = [o.model_copy(update=items) if o.task else o for o in score.objective]
    point = spec.point.model_copy(update={"score": score.model_copy(update=update)})
    return spec.model_copy(update={"point": point})


def check_tasks(point: PointConfig, *, sealed: bool = False) -> None:
    """Check that the model can answer the tasks that the trial scores, and that none of them is sealed.

    `sealed`: it is a trial of the sealed test, which scores those tasks alone.

    Raises: UserError if a sealed task shares items with one that is scored, which `check --static` finds by the names
    only where lm-eval is not installed.
    """
    assert point.model is not None, "a fine-tuning trial has a model"
    asked = sealed_tasks(point.score) if sealed else requested_tasks(point.score)
    tasks = [one.task for one in asked]
    if tasks and point.model.task != "causal_lm":
        raise UserError(
            f"score: {tasks[0]} needs task: causal_lm; {point.model.task} has eval_loss and others"
        )
    if sealed:
        return
    closed, index = [one.task for one in point.score.test], task_index(point.score.include_path)
    shared = overlap(closed, tasks, index=index) if closed else []
    if shared:
        raise UserError(shared[0])


def _load_inputs(spec: TrialSpec, model: ModelConfig, output: TrialOutput, kept: Kept | None) -> TrialInputs:
    """The trial's inputs; keeps their counts and warnings."""
    prepared = Path(spec.prepared) if spec.prepared is not None else None
    inputs = load_inputs(
        model,
        spec.point.data,
        data_root=spec.data_root,
        prepared=prepared,
        kept=kept,
        progress=output.progress.count,
    )
    if spec.point.data is None:
        return inputs
    if output.is_main:
        output.inputs["rows"] = rows_hash(inputs.train, inputs.validation)
        for use in inputs.uses:
            own = by_source(inputs.trained, spec.point.data)[use.name]
            output.inputs[f"rows of {use.name} ({use.rows})"] = rows_hash(selected(inputs.train, own))
    both = inputs.split.both
    output.metrics.update(
        train_rows=len(inputs.train),
        validation_rows=len(inputs.validation),
        dropped_rows=len(both.left_out),
        cut_rows=len(both.cut_numbers),
    )
    for warning in [*inputs.split.warnings, *(text for use in inputs.uses for text in use.warnings)]:
        output.add_warning(warning)
    return inputs


def _check_model(spec: TrialSpec, inputs: TrialInputs, output: TrialOutput, kept: Kept | None) -> None:
    """Check on the meta device that model, tokenizer, rows and adapter fit together; keep the warnings.

    Raises: UserError.
    """
    assert spec.point.model is not None, "a fine-tuning trial has a model"
    adapts = spec.kind == "trial" and spec.point.trains and not trains_whole(spec.point.train)
    model, lora = spec.point.model, [spec.point.lora] if adapts else []
    extent = split_extent(inputs.split)

    def check() -> list[str]:
        key = checked_key(inputs.key, model, lora, extent=extent, labels=inputs.labels)
        if key is not None and spec.prepared is not None:
            found = find_checked(Path(spec.prepared), key)
            if found is not None:
                return found
        return check_model(model, lora, tokenizer=inputs.tokenizer, extent=extent, labels=inputs.labels)

    facts = (model.model_dump(mode="json"), lora, asdict(extent), inputs.labels)
    for warning in check() if kept is None else kept.model_warnings(key_of(*facts), check):
        output.add_warning(warning)


def _build_tasks(spec: TrialSpec, inputs: TrialInputs, output: TrialOutput, kept: Kept | None) -> BuiltTasks:
    """The requests of the lm-eval tasks that the trial scores; their warnings are kept.

    Raises: TrialError.
    """
    assert spec.point.model is not None, "a fine-tuning trial has a model"
    model, score, data = spec.point.model, spec.point.score, spec.point.data
    prompt = None if data is None else data.prompt
    tasks = sealed_tasks(score) if spec.sealed else requested_tasks(score)

    def build() -> BuiltTasks:
        return build_requests(
            tasks,
            score=score,
            prompt=prompt,
            tokenizer=inputs.tokenizer,
            config=base_config(model),
            data_root=spec.data_root,
            home=spec.home,
        )

    if kept is None:
        built = build()
    else:
        allow_code(score)
        facts = score.model_dump(mode="json", exclude={"generation"})
        built = kept.requests(key_of(tasks, facts, prompt), build, spec.folder)
    asked = ask_with(built, score, tokenizer=inputs.tokenizer, config=base_config(model), sealed=spec.sealed)
    if output.is_main:
        output.inputs |= request_hashes(built)
    for warning in (*built.warnings, *asked):
        output.add_warning(warning)
    return built


def _pass_limit(
    model: torch.nn.Module, inputs: TrialInputs, spec: TrialSpec, memory: MemoryChoice | None
) -> PassLimit:
    """How many rows a forward pass of scoring holds: no more logits than one of training."""
    if not spec.point.trains:
        tokens = UNTRAINED_TOKENS
        return pass_limit(model, batch_size=spec.point.score.batch_size, train_rows=1, train_tokens=tokens)
    chosen = spec.point.train if memory is None else memory.applied(spec.point.train)
    args = training_arguments(chosen, seed=spec.seed, folder=Path(spec.folder))
    return pass_limit(
        model,
        batch_size=spec.point.score.batch_size,
        train_rows=args.per_device_train_batch_size,
        train_tokens=max(row_lengths(inputs.train)),
        chunked_loss=chosen.get("chunked_loss") is not False,
    )


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

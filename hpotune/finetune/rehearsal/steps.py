"""The steps of a trial before its first optimizer step, for the corners of a space; every mistake is collected.

    points -> settings -> tokenizer -> rows -> tokens -> lm-eval requests -> model and adapter without weights

Each step calls the function that a trial calls. Points with the same sections share a step: the rows are read once for
each model and data section, whatever the ranges under `lora` and `train`.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import transformers
from pydantic import JsonValue

from hpotune.config.memory.point_memory import counted_lengths
from hpotune.config.schema.study_config import DataConfig, ModelConfig, PointConfig
from hpotune.config.training_method import trains_whole
from hpotune.finetune.data.dataset import DataSplit
from hpotune.finetune.data.mixture import SourceUse, by_source, mixed_rows
from hpotune.finetune.data.prepared_rows import TokenizedSplit, prepared_key, write_prepared
from hpotune.finetune.data.streamed_split import Streams, open_streams, streamed_split
from hpotune.finetune.inputs import load_split, no_rows, tokenize_split
from hpotune.finetune.model.base_model import load_tokenizer
from hpotune.finetune.model.checked_models import checked_key, write_checked
from hpotune.finetune.model.labels import base_config
from hpotune.finetune.model.model_checks import check_model, split_extent
from hpotune.finetune.pipeline import check_tasks
from hpotune.finetune.rehearsal.preview_rows import lengths, preview_rows, row_reasons
from hpotune.finetune.scoring.answer_settings import ask_with, check_searched
from hpotune.finetune.scoring.task_requests import build_requests, requested_tasks, sealed_tasks
from hpotune.finetune.training.adapter_training import check_settings
from hpotune.finetune.training.loss import IGNORED, row_lengths
from hpotune.finetune.training.optimizer import step_plan, training_arguments
from hpotune.finetune.trial_errors import DatasetNotCached, ModelNotCached, TrialError
from hpotune.records.error_origin import reason
from hpotune.records.rehearsal_record import (
    RehearsalProgress,
    RehearsalResult,
    RehearsalSpec,
    SourceRows,
    Step,
    TaskRequests,
)
from hpotune.records.trial import TrialSpec

Report = Callable[[RehearsalProgress], None]
Read = Streams | tuple[DataSplit, list[str] | None]
"""The rows that are read: with data.streaming, or as `load_split` returns them."""


@dataclass(kw_only=True, slots=True)
class Findings:
    """The mistakes and warnings so far, each once."""

    report: Report
    mistakes: dict[str, None] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)

    @contextmanager
    def step(self, name: Step) -> Iterator[None]:
        """A block whose error is a mistake of the study; the block after it goes on.

        An error that hpotune does not raise itself is a mistake too: a trial would end with it.
        """
        self.report(RehearsalProgress(step=name))
        try:
            yield
        except (ModelNotCached, DatasetNotCached) as error:
            self.missing[str(error)] = None
        except TrialError as error:
            self.mistakes[str(error).strip().replace("\n", "; ")] = None
        except Exception as error:
            traceback.print_exc()
            self.mistakes[f"{SECTION[name]}: a trial would end with {reason(error)}"] = None

    def count(self, name: Step, done: int, total: int) -> None:
        """Report the progress of a step."""
        self.report(RehearsalProgress(step=name, done=min(done, total), total=total))

    def warn(self, *texts: str) -> None:
        """Add warnings."""
        self.warnings.update(dict.fromkeys(texts))


SECTION: dict[Step, str] = {
    "settings": "train",
    "tokenizer": "model.tokenizer",
    "rows": "data.path",
    "tokens": "data",
    "tasks": "score",
    "model": "model.path",
}
"""Step -> the key that an unexpected error in it is reported at."""


def rehearse(spec: RehearsalSpec, *, report: Report) -> RehearsalResult:
    """All mistakes and warnings of the spec's points; rows and requests of its first point."""
    found = Findings(report=report)
    result = RehearsalResult()
    for point in distinct([one for one in spec.points if one.trains], "lora", "train", "model"):
        with found.step("settings"):
            _check_settings(point, spec)
    for index, points in enumerate(_with_equal_rows(spec.points)):
        one = _rehearse_inputs(points, spec, found)
        most = [max(pair) for pair in zip_longest(result.counted, one.counted, fillvalue=0)]
        extent = {"longest": max(result.longest, one.longest), "counted": most}
        result = (one if index == 0 else result).model_copy(update=extent)
    update = {name: list(getattr(found, name)) for name in ("mistakes", "warnings", "missing")}
    return result.model_copy(update=update)


def distinct(points: Sequence[PointConfig], *sections: str) -> list[PointConfig]:
    """The first point of each group of points that are equal in these sections."""
    return [group[0] for group in grouped(points, *sections)]


def grouped(points: Sequence[PointConfig], *sections: str) -> list[list[PointConfig]]:
    """The points grouped by their values in these sections, in the order of the points."""
    groups: dict[str, list[PointConfig]] = {}
    for point in points:
        groups.setdefault(point.model_dump_json(include=set(sections)), []).append(point)
    return list(groups.values())


def _with_equal_rows(points: Sequence[PointConfig]) -> list[list[PointConfig]]:
    """The points grouped by model and data, whatever the weights of a mixture are."""
    groups: dict[str, list[PointConfig]] = {}
    for point in points:
        rows = None if point.data is None else point.data.unweighted
        key = point.model_copy(update={"data": rows})
        groups.setdefault(key.model_dump_json(include={"model", "data"}), []).append(point)
    return list(groups.values())


def _check_settings(point: PointConfig, spec: RehearsalSpec) -> None:
    with tempfile.TemporaryDirectory(prefix="hpotune-rehearsal-") as folder:
        check_settings(
            TrialSpec(study=spec.study, number=0, kind="trial", seed=0, folder=folder, point=point)
        )


def _rehearse_inputs(points: Sequence[PointConfig], spec: RehearsalSpec, found: Findings) -> RehearsalResult:
    """Rows, tasks and model of points that share the sections `model` and `data`."""
    model, data = points[0].model, points[0].data
    assert model is not None, "only fine-tuning is rehearsed"
    tokenizer = read = split = key = None
    result = RehearsalResult()
    with found.step("tokenizer"):
        tokenizer = load_tokenizer(model)
    if data is not None:
        if spec.preview:  # which shows the texts, and a file of tokens does not hold them
            data = data.model_copy(update={"streaming": False})
        with found.step("rows"):
            read = _read_rows(model, data, spec)
    if tokenizer is not None and read is not None and data is not None:
        with found.step("tokens"):
            key = prepared_key(model, data, tokenizer, data_root=spec.data_root)
            split = _tokenized(read, data, tokenizer, spec, found, key=key)
            found.warn(*split.warnings)
            result = _row_result(split, preview=spec.preview)
            result = result.model_copy(update={"sources": _check_mixtures(points, split, found)})
    if tokenizer is not None and data is None:
        _check_models(points, no_rows(), tokenizer, found, spec, rows_key=None)
    if tokenizer is not None and split is not None and data is not None:
        _check_steps(points, split, spec, found)
        _check_models(points, split, tokenizer, found, spec, rows_key=key)
        if spec.prepared is not None and key is not None and not data.streaming:
            with suppress(OSError):  # without the file the trials tokenize the rows themselves
                write_prepared(Path(spec.prepared), key, split)
    if tokenizer is not None:
        requests = _build_tasks(points, tokenizer, spec, found)
        result = result.model_copy(update={"requests": requests})
    return result


def _read_rows(model: ModelConfig, data: DataConfig, spec: RehearsalSpec) -> Read:
    """The rows; with data.streaming they are opened, and checked in a first reading."""
    if data.streaming:
        return open_streams(model, data, data_root=spec.data_root)
    return load_split(model, data, data_root=spec.data_root)


def _tokenized(
    read: Read,
    data: DataConfig,
    tokenizer: transformers.PreTrainedTokenizerBase,
    spec: RehearsalSpec,
    found: Findings,
    *,
    key: str | None,
) -> TokenizedSplit:
    if isinstance(read, Streams):
        return streamed_split(
            lambda: read,
            data,
            tokenizer,
            folder=Path(spec.prepared) if spec.prepared is not None else None,
            key=key,
            progress=lambda done, total: found.count("tokens", done, total),
        )
    rows, labels = read
    total = len(rows.train)
    return tokenize_split(
        rows, labels, data, tokenizer, progress=lambda done: found.count("tokens", done, total)
    )


def _row_result(split: TokenizedSplit, *, preview: bool) -> RehearsalResult:
    rows, trained = split.both, split.train.rows
    return RehearsalResult(
        used=len(rows.used),
        dropped=row_reasons(rows.left_out),
        cut=sorted(rows.cut_numbers),
        longest=max(row_lengths(trained), default=0),
        counted=list(counted_lengths((row.targets for row in trained), ignored=IGNORED)),
        lengths=lengths(row_lengths(rows.rows)),
        rows=preview_rows(sorted(rows.used, key=lambda row: row.number), labels=split.labels)
        if preview
        else [],
    )


def _check_mixtures(
    points: Sequence[PointConfig], split: TokenizedSplit, found: Findings
) -> list[SourceRows]:
    """What an epoch trains of each source, at the first point; of every point the most that a row is repeated."""
    most: dict[str, SourceUse] = {}
    first: list[SourceUse] = []
    for index, point in enumerate(distinct(points, "data")):
        assert point.data is not None, "only fine-tuning is rehearsed"
        _, uses = mixed_rows(split.train.used, point.data)
        first = uses if index == 0 else first
        for use in uses:
            before = most.setdefault(use.name, use)
            if use.warnings and (not before.warnings or use.passes > before.passes):
                most[use.name] = use
    found.warn(*(text for use in most.values() for text in use.warnings))
    data = points[0].data
    assert data is not None, "only fine-tuning is rehearsed"
    held_out = {name: len(rows) for name, rows in by_source(split.validation.used, data).items()}
    return [
        SourceRows(
            name=use.name,
            path=use.path,
            weight=use.weight,
            share=use.share,
            rows=use.rows,
            available=use.available,
            passes=use.passes,
            validation=held_out[use.name],
        )
        for use in first
    ]


def _check_steps(
    points: Sequence[PointConfig], split: TokenizedSplit, spec: RehearsalSpec, found: Findings
) -> None:
    """Batches and steps of each distinct `train` section; every mixture of a study has as many rows an epoch."""
    for point in distinct(points, "train", "data"):
        assert point.data is not None, "only fine-tuning is rehearsed"
        rows = len(split.train.used)
        if point.data.mixture and point.data.rows is not None:
            rows = point.data.rows
        with found.step("settings"), tempfile.TemporaryDirectory(prefix="hpotune-rehearsal-") as folder:
            args = training_arguments(point.train, seed=0, folder=Path(folder))
            step_plan(args, point.train, rows=rows, world_size=spec.world_size)


def _build_tasks(
    points: Sequence[PointConfig],
    tokenizer: transformers.PreTrainedTokenizerBase,
    spec: RehearsalSpec,
    found: Findings,
) -> dict[str, TaskRequests]:
    """The requests of all tasks, those of the sealed test too; returns those of the first `score` section."""
    requests: dict[str, TaskRequests] = {}
    for group in _asked_alike(points):
        score, model, data = group[0].score, group[0].model, group[0].data
        assert model is not None, "only fine-tuning is rehearsed"
        sides = []
        with found.step("tasks"):
            check_tasks(group[0])
            for is_sealed, tasks in ((False, requested_tasks(score)), (True, sealed_tasks(score))):
                built = build_requests(
                    tasks,
                    score=score,
                    prompt=None if data is None else data.prompt,
                    tokenizer=tokenizer,
                    config=base_config(model),
                    data_root=spec.data_root,
                    home=spec.home,
                )
                found.warn(*built.warnings)
                sides.append((is_sealed, built))
                if len(group) > 1 and not is_sealed:
                    check_searched(built, score)
        for point in reversed(group):  # the first one last, whose requests are shown
            for is_sealed, built in sides:
                with found.step("tasks"):
                    found.warn(
                        *ask_with(
                            built,
                            point.score,
                            tokenizer=tokenizer,
                            config=base_config(model),
                            sealed=is_sealed,
                        )
                    )
        for _, built in sides:
            requests |= built.summary(sealed=[one.task for one in score.test])
    return requests


def _asked_alike(points: Sequence[PointConfig]) -> list[list[PointConfig]]:
    """The points with different `score` sections, in groups that differ in `score.generation` only."""
    groups: dict[str, list[PointConfig]] = {}
    for point in distinct(points, "score"):
        groups.setdefault(point.score.model_dump_json(exclude={"generation"}), []).append(point)
    return list(groups.values())


def _check_models(
    points: Sequence[PointConfig],
    split: TokenizedSplit,
    tokenizer: transformers.PreTrainedTokenizerBase,
    found: Findings,
    spec: RehearsalSpec,
    *,
    rows_key: str | None,
) -> None:
    """The model without weights, with the adapter of each distinct `lora` section; trials use what passes."""
    extent = split_extent(split)
    checked: list[list[dict[str, JsonValue]]] = []
    for point in distinct(points, "lora", "train"):
        assert point.model is not None, "only fine-tuning is rehearsed"
        lora = [point.lora] if point.trains and not trains_whole(point.train) else []
        if lora in checked:
            continue
        checked.append(lora)
        with found.step("model"):
            warnings = check_model(point.model, lora, tokenizer=tokenizer, extent=extent, labels=split.labels)
            found.warn(*warnings)
            key = checked_key(rows_key, point.model, lora, extent=extent, labels=split.labels)
            if spec.prepared is not None and key is not None:
                with suppress(OSError):  # without the file the trials check it themselves
                    write_checked(Path(spec.prepared), key, warnings)

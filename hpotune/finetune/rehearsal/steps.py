"""The steps of a trial before its first optimizer step, for the corners of a space; every mistake is collected.

    points -> settings -> tokenizer -> rows -> tokens -> lm-eval requests -> model and adapter without weights

Each step calls the function that a trial calls. Points with the same sections share a step: the rows are read once for
each model and data section, whatever the ranges under `lora` and `train`.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import transformers

from hpotune.config.schema.study_config import DataConfig, PointConfig
from hpotune.finetune.data import dataset
from hpotune.finetune.data.dataset import DataSplit
from hpotune.finetune.data.tokenization import TokenizedRows, tokenize_rows
from hpotune.finetune.model.base_model import load_tokenizer
from hpotune.finetune.rehearsal.preview_rows import lengths, preview_rows, row_reasons
from hpotune.finetune.training.adapter_training import check_settings
from hpotune.finetune.training.optimizer import step_plan, training_arguments
from hpotune.finetune.trial_errors import TrialError
from hpotune.records.rehearsal_record import RehearsalProgress, RehearsalResult, RehearsalSpec, Step
from hpotune.records.trial import TrialSpec

Report = Callable[[RehearsalProgress], None]
PROGRESS_ROWS = 1000
"""Rows between two lines of progress."""


@dataclass(kw_only=True, slots=True)
class Findings:
    """The mistakes and warnings so far, each once."""

    report: Report
    mistakes: dict[str, None] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)

    @contextmanager
    def step(self, name: Step) -> Iterator[None]:
        """A block whose error is a mistake of the study; the block after it goes on.

        An error that hpotune does not raise itself is a mistake too: a trial would end with it.
        """
        self.report(RehearsalProgress(step=name))
        try:
            yield
        except TrialError as error:
            self.mistakes[str(error).strip().replace("\n", "; ")] = None
        except Exception as error:
            traceback.print_exc()
            first = (str(error).strip().splitlines() or [""])[0]
            self.mistakes[f"{SECTION[name]}: a trial would end with {type(error).__name__}: {first}"] = None

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
    for point in distinct(spec.points, "lora", "train", "model"):
        with found.step("settings"):
            _check_settings(point, spec)
    for index, points in enumerate(grouped(spec.points, "model", "data")):
        first = _rehearse_inputs(points, spec, found)
        result = first if index == 0 else result
    update = {"mistakes": list(found.mistakes), "warnings": list(found.warnings)}
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


def _check_settings(point: PointConfig, spec: RehearsalSpec) -> None:
    with tempfile.TemporaryDirectory(prefix="hpotune-rehearsal-") as folder:
        check_settings(
            TrialSpec(study=spec.study, number=0, kind="trial", seed=0, folder=folder, point=point)
        )


def _rehearse_inputs(points: Sequence[PointConfig], spec: RehearsalSpec, found: Findings) -> RehearsalResult:
    """Rows, tasks and model of points that share the sections `model` and `data`."""
    model, data = points[0].model, points[0].data
    assert model is not None, "only fine-tuning is rehearsed"
    assert data is not None, "only fine-tuning is rehearsed"
    labelled = model.task == "sequence_classification"
    result = RehearsalResult()
    tokenizer = rows = tokens = None
    with found.step("tokenizer"):
        tokenizer = load_tokenizer(model)
    with found.step("rows"):
        rows = dataset.load_rows(data, data_root=spec.data_root, labelled=labelled)
    if tokenizer is not None and rows is not None:
        with found.step("tokens"):
            tokens = _tokenize(rows, data, tokenizer, labelled=labelled, found=found)
            result = _row_result(tokens, preview=spec.preview, labels=_label_names(rows))
        if tokens is not None:
            _check_steps(points, tokens, rows, spec, found)
    return result


def _tokenize(
    rows: DataSplit,
    data: DataConfig,
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    labelled: bool,
    found: Findings,
) -> TokenizedRows:
    """Training and validation rows together, as tokens."""
    train = tokenize_rows(rows.train, data, tokenizer, labelled=labelled)
    validation = tokenize_rows(rows.validation, data, tokenizer, labelled=labelled)
    return TokenizedRows(used=train.used + validation.used, left_out=train.left_out + validation.left_out)


def _label_names(rows: DataSplit) -> list[str]:
    return [str(number) for number in range(rows.num_labels)]


def _row_result(tokens: TokenizedRows, *, preview: bool, labels: Sequence[str]) -> RehearsalResult:
    used = sorted(tokens.used, key=lambda row: row.number)
    return RehearsalResult(
        used=len(used),
        dropped=row_reasons(tokens.left_out),
        cut=[row.number for row in used if row.is_cut],
        lengths=lengths([len(row.tokens.ids) for row in used]),
        rows=preview_rows(used, labels=labels) if preview else [],
    )


def _check_steps(
    points: Sequence[PointConfig],
    tokens: TokenizedRows,
    rows: DataSplit,
    spec: RehearsalSpec,
    found: Findings,
) -> None:
    """Batches and steps of each distinct `train` section."""
    held_out = {row.number for row in rows.validation}
    count = sum(row.number not in held_out for row in tokens.used)
    for point in distinct(points, "train"):
        with found.step("settings"), tempfile.TemporaryDirectory(prefix="hpotune-rehearsal-") as folder:
            args = training_arguments(point.train, seed=0, folder=Path(folder))
            step_plan(args, point.train, rows=count, world_size=spec.world_size)

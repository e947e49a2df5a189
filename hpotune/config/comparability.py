"""What all trials of a study and its baseline must share, so that their numbers can be compared.

Where ranges may not stand, and objectives that the untouched base has no number for.
"""

from __future__ import annotations

from collections.abc import Iterator

from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import KeyPath, Value

SEARCHABLE = ("model", "data", "lora", "train", "params")
BASE = ("path", "revision", "dtype", "tokenizer", "task", "num_labels")
"""Keys of `model` that make another base of it."""
OF_ROWS = ("eval_loss", "eval_accuracy", "train_loss", "final_train_loss")
"""Metrics that are measured on the study's own rows."""
OF_TRAINING = ("samples_per_second", "tokens_per_second", "train_seconds")
"""Metrics that only a training has."""
APART = "make a study for each"


def check_place(where: KeyPath, values: dict[str, Value]) -> None:
    """Raises: ValueError where no range may stand."""
    if where and where[0] == "score":
        raise ValueError(f"holds a range, but all trials are measured alike; {APART}")
    if not where or where[0] not in SEARCHABLE:
        raise ValueError(f"holds a range; ranges may stand under {', '.join(SEARCHABLE)}")
    if len(where) == 1:
        raise ValueError(
            "holds a range as a whole; a range stands at one value, such as lora.r: {int: [4, 64]}"
        )
    if where[0] == "model" and where[1] in BASE:
        raise ValueError(f"holds a range, but the baseline and all trials are compared on one base; {APART}")
    if where[0] == "data":
        _check_rows(where, values)


def _check_rows(where: KeyPath, values: dict[str, Value]) -> None:
    if where[1] in ("seed", "validation"):
        raise ValueError("holds a range, but all trials keep the same rows out of training; write one value")
    own = [metric for metric in _metrics(values) if metric in OF_ROWS]
    if own:
        raise ValueError(
            f"holds a range, but the objective {own[0]} is measured on these rows: each trial would have another "
            f"yardstick; judge by an lm-eval task, or {APART}"
        )


def _metrics(values: dict[str, Value]) -> list[Value]:
    """The metrics of the objectives without a task, as the file has them."""
    score = values.get("score")
    found = score.get("objective") if isinstance(score, dict) else None
    objectives = found if isinstance(found, list) else [found]
    return [one.get("metric") for one in objectives if isinstance(one, dict) and one.get("task") is None]


def unmeasured(config: StudyConfig, values: dict[str, Value]) -> Iterator[tuple[KeyPath, str]]:
    """Objectives of a fine-tuning that its baseline, or nothing at all, can measure."""
    if config.model is None:
        return
    score = values.get("score")
    several = isinstance(score, dict) and isinstance(score.get("objective"), list)
    for index, objective in enumerate(config.score.objective):
        where: KeyPath = ("score", "objective", *([index] if several else []), "metric")
        if objective.task is not None:
            continue
        if objective.metric == "seconds":
            yield where, "metric='seconds' is not measured by a fine-tuning; did you mean 'train_seconds'?"
        if objective.metric in OF_TRAINING and config.checks.baseline:
            yield (
                where,
                f"metric={objective.metric!r} is one that the untouched base does not have; write checks: "
                "{baseline: false}, or record it beside another objective",
            )

"""lm-eval's results as scores by name, and as arrays of the score of each item."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from hpotune.config.lm_eval_tasks import TaskIndex
from hpotune.config.yaml_source import Value
from hpotune.finetune.distributed.ranks import Ranks

ITEMS = "items.npz"


PASSAGE_FIELDS = ("passage", "context", "article", "story", "paragraph")
"""Fields of an item that hold the text which several items ask about, in the datasets of lm-eval's tasks."""


class Sample(TypedDict):
    doc_id: int
    doc: Mapping[str, object]
    filter: str
    metrics: list[str]


"""One item's answer; its scores are further keys, named by `metrics`."""


class EvalResults(TypedDict):
    """The parts of the result of lm-eval's `evaluate` that are read here."""

    group_subtasks: Mapping[str, Sequence[str]]
    results: Mapping[str, Mapping[str, Value]]
    samples: Mapping[str, Sequence[Sample]]


def task_scores(
    results: EvalResults, names: Sequence[str], index: TaskIndex, *, subjects: bool = False
) -> dict[str, float]:
    """`TASK/METRIC` and `TASK/METRIC_stderr` of the requested names, the groups in them, and the tasks of tags.

    `subjects`: also of the single tasks of groups.
    """
    groups = set(results["group_subtasks"])
    shown = {*names, *groups}
    for name in names:
        if subjects or name not in groups:
            shown |= index.leaves(name)
    return {
        f"{task}/{label}": value
        for task in sorted(shown & set(results["results"]))
        for label, value in _labelled_scores(results["results"][task])
    }


def _labelled_scores(row: Mapping[str, Value]) -> Iterator[tuple[str, float]]:
    """(label, number) of lm-eval's `metric,filter` and `metric_stderr,filter`; texts are skipped."""
    for key, value in row.items():
        metric, comma, kind = key.partition(",")
        if comma and isinstance(value, (int, float, np.number)):
            error = "_stderr" if metric.endswith("_stderr") else ""
            yield _label(metric.removesuffix("_stderr"), kind) + error, float(value)


def _label(metric: str, kind: str) -> str:
    return metric if kind == "none" else f"{metric},{kind}"


def item_scores(results: EvalResults, names: Sequence[str], index: TaskIndex) -> dict[str, np.ndarray]:
    """The arrays of items.npz by name.

    Shapes: `NAME/leaves` (tasks,) text; `TASK/doc_id` (items,) int64; `TASK/METRIC` (items,) float64, in the order of
    doc_id, NaN for an item without the metric; `TASK/cluster` (items,) int64, equal for items about the same passage,
    where there are such items.
    """
    arrays = {f"{name}/leaves": np.array(sorted(index.leaves(name))) for name in names}
    for task, samples in results["samples"].items():
        ids = sorted({sample["doc_id"] for sample in samples})
        arrays[f"{task}/doc_id"] = np.array(ids, dtype=np.int64)
        position = {doc_id: i for i, doc_id in enumerate(ids)}
        clusters = _passages({sample["doc_id"]: sample["doc"] for sample in samples})
        if clusters is not None:
            arrays[f"{task}/cluster"] = clusters
        columns: dict[str, list[object]] = {}
        for sample in samples:
            for metric in sample["metrics"]:
                column = columns.setdefault(_label(metric, sample["filter"]), [np.nan] * len(ids))
                column[position[sample["doc_id"]]] = sample[metric]  # type: ignore[literal-required]
        for label, column in columns.items():
            # Metrics that are not a mean over items give pairs or texts per item: they have no array.
            with contextlib.suppress(TypeError, ValueError):
                arrays[f"{task}/{label}"] = np.array(column, dtype=np.float64)
    return arrays


def _passages(docs: Mapping[int, Mapping[str, object]]) -> np.ndarray | None:
    """The number of each item's passage, in the order of doc_id; None where no two items share one."""
    field = next(
        (name for name in PASSAGE_FIELDS if all(isinstance(d.get(name), str) for d in docs.values())), None
    )
    if field is None:
        return None
    numbers: dict[object, int] = {}
    found = [numbers.setdefault(docs[doc_id][field], len(numbers)) for doc_id in sorted(docs)]
    return np.array(found, dtype=np.int64) if 1 < len(numbers) < len(found) else None


def write_items(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays as a compressed npz file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    with unfinished.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    unfinished.replace(path)


def save_rung_items(folder: Path, rung: int, ranks: Ranks) -> None:
    """Copy items.npz to items-RUNG.npz, on rank 0: trials are compared by the item scores of the same rung."""
    if ranks.is_main and (folder / ITEMS).exists():
        kept = folder / f"items-{rung}.npz"
        (folder / f"{kept.name}.tmp").write_bytes((folder / ITEMS).read_bytes())
        (folder / f"{kept.name}.tmp").replace(kept)

"""What lm-eval found, as our numbers by name and as arrays item by item."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hpotune.config.lm_eval_tasks import TaskIndex
from hpotune.config.schema.study_config import Json
from hpotune.finetune.distributed.ranks import Ranks

ITEMS = "items.npz"


def numbers_of(found: Json, names: Sequence[str], index: TaskIndex) -> dict[str, float]:
    groups = set(found["group_subtasks"])
    shown = {*names, *groups}
    for name in names:
        if name not in groups:
            shown |= index.leaves(name)
    return {
        f"{task}/{label}": value
        for task in sorted(shown & set(found["results"]))
        for label, value in _labelled(found["results"][task])
    }


def _labelled(row: Mapping[str, Json]) -> Iterator[tuple[str, float]]:
    """(label, number) of lm-eval's `metric,filter` and `metric_stderr,filter`; texts are passed over."""
    for key, value in row.items():
        metric, comma, kind = key.partition(",")
        if comma and isinstance(value, (int, float, np.number)):
            error = "_stderr" if metric.endswith("_stderr") else ""
            yield _label(metric.removesuffix("_stderr"), kind) + error, float(value)


def _label(metric: str, kind: str) -> str:
    return metric if kind == "none" else f"{metric},{kind}"


def items_of(found: Json, names: Sequence[str], index: TaskIndex) -> dict[str, np.ndarray]:
    arrays = {f"{name}/leaves": np.array(sorted(index.leaves(name))) for name in names}
    for task, samples in found["samples"].items():
        ids = sorted({sample["doc_id"] for sample in samples})
        arrays[f"{task}/doc_id"] = np.array(ids, dtype=np.int64)
        place = {doc_id: i for i, doc_id in enumerate(ids)}
        columns: dict[str, list[Json]] = {}
        for sample in samples:
            for metric in sample["metrics"]:
                column = columns.setdefault(_label(metric, sample["filter"]), [np.nan] * len(ids))
                column[place[sample["doc_id"]]] = sample[metric]
        for label, column in columns.items():
            with contextlib.suppress(
                TypeError, ValueError
            ):  # pairs and texts, of metrics that are no mean of items
                arrays[f"{task}/{label}"] = np.array(column, dtype=np.float64)
    return arrays


def write_items(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    with unfinished.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    unfinished.replace(path)


def keep_items(folder: Path, rung: int, ranks: Ranks) -> None:
    """Keeps what was scored at a rung beside what will be: items-RUNG.npz, which trials are compared by there."""
    if ranks.first_one and (folder / ITEMS).exists():
        kept = folder / f"items-{rung}.npz"
        (folder / f"{kept.name}.tmp").write_bytes((folder / ITEMS).read_bytes())
        (folder / f"{kept.name}.tmp").replace(kept)

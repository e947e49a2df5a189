"""The items that a trial's score is the mean of, and the tables of scores that the statistics compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpotune.config.schema.study_config import Objective
from hpotune.records.trial import TrialRow
from hpotune.statistics.score_table import Floats, Ints, ScoreTable, table_of_errors, table_of_items
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.item_file import read_arrays

FEWEST_CLUSTERS = 10
"""Subjects of a group that are enough for an error between subjects; with fewer, the items alone are used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreItems:
    """The items of one score. Shapes: (items,) each."""

    ids: npt.NDArray[np.str_]
    values: Floats
    weights: Floats
    """The score is the sum of the values times these."""
    clusters: Ints | None
    """The passage or the subject of each item; None: each item is by itself."""


def score_items(folder: StudyFolder, objective: Objective, row: TrialRow) -> ScoreItems | None:
    """The items of a trial's score; None where none were kept, or where the score is no mean of them (perplexity)."""
    if objective.task is None:
        return None
    arrays = read_arrays(folder.trusted_trial(row.number) / "items.npz")
    found = _of_task(arrays, objective) if f"{objective.task}/doc_id" in arrays else None
    for one in [found] if found else _of_group(arrays, objective):
        if any(math.isclose(float(one.values @ one.weights), value, abs_tol=1e-6) for value in row.values):
            return one
    return None


def _of_task(arrays: Mapping[str, npt.NDArray[np.generic]], objective: Objective) -> ScoreItems | None:
    task, values = objective.task, arrays.get(f"{objective.task}/{objective.metric}")
    ids, clusters = arrays[f"{task}/doc_id"], arrays.get(f"{task}/cluster")
    if values is None or values.dtype.kind == "U" or not 0 < len(values) == len(ids):
        return None
    if clusters is not None and (clusters.dtype.kind not in "iu" or len(clusters) != len(ids)):
        return None
    return ScoreItems(
        ids=ids.astype(np.str_),
        values=values.astype(np.float64),
        weights=np.full(len(values), 1 / len(values)),
        clusters=None if clusters is None else clusters.astype(np.int64),
    )


def _of_group(arrays: Mapping[str, npt.NDArray[np.generic]], objective: Objective) -> list[ScoreItems]:
    """The items of a group's tasks, weighted by the tasks' sizes or with an equal weight for each task."""
    leaves = [str(leaf) for leaf in arrays.get(f"{objective.task}/leaves", [])]
    pairs = [(arrays.get(f"{leaf}/doc_id"), arrays.get(f"{leaf}/{objective.metric}")) for leaf in leaves]
    both = [(id_, part) for id_, part in pairs if id_ is not None and part is not None]
    usable = all(part.dtype.kind != "U" and 0 < len(part) == len(id_) for id_, part in both)
    if not both or len(both) < len(pairs) or not usable:
        return []
    ids, known = [id_.astype(np.str_) for id_, _ in both], [part.astype(np.float64) for _, part in both]
    named = np.concatenate([np.char.add(f"{leaf}/", one) for leaf, one in zip(leaves, ids, strict=True)])
    sizes = np.array([len(part) for part in known])
    subjects = np.repeat(np.arange(len(leaves)), sizes)
    by_size = np.full(int(sizes.sum()), 1 / sizes.sum())
    return [
        ScoreItems(
            ids=named,
            values=np.concatenate(known),
            weights=weights,
            clusters=subjects if len(leaves) >= FEWEST_CLUSTERS else None,
        )
        for weights in (by_size, np.repeat(1 / sizes / len(sizes), sizes))
    ]


class ItemReader:
    """The items of trials' scores by one objective. Each trial's file is read once, however often it is compared."""

    def __init__(self, folder: StudyFolder, objective: Objective) -> None:
        self.objective = objective
        self._folder = folder
        self._found: dict[int, ScoreItems | None] = {}

    def __call__(self, row: TrialRow) -> ScoreItems | None:
        """As `score_items`."""
        if row.number not in self._found:
            self._found[row.number] = score_items(self._folder, self.objective, row)
        return self._found[row.number]


def same_items(one: ScoreItems | None, other: ScoreItems | None) -> bool:
    """Whether two scores are of the same items, at least two of them."""
    return one is not None and other is not None and len(one.ids) > 1 and np.array_equal(one.ids, other.ids)


def have_same_items(read_items: ItemReader, rows: Sequence[TrialRow]) -> bool:
    """Whether the scores of all these trials are of the same items."""
    first = read_items(rows[0])
    return first is not None and all(same_items(first, read_items(row)) for row in rows)


def score_table(
    read_items: ItemReader, rows: Sequence[TrialRow], baseline: TrialRow | None
) -> ScoreTable | None:
    """The scores of trials by the first objective, larger is better: by their items where all have the same ones.

    None where the standard error of a trial is not known. A baseline without the items, or without an error, is left
    out.
    """
    sign = 1.0 if read_items.objective.sense == "maximize" else -1.0
    items = [read_items(row) for row in rows]
    first = items[0]
    if first is not None and have_same_items(read_items, rows):
        base = read_items(baseline) if baseline else None
        return table_of_items(
            sign * np.stack([one.values for one in items if one is not None]),
            sign * base.values if base is not None and same_items(first, base) else None,
            clusters=first.clusters,
            weights=first.weights,
        )
    errors = [row.stderrs[0] if row.stderrs else None for row in rows]
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return None
    return table_of_errors(
        sign * np.array([row.values[0] for row in rows]),
        np.array(known),
        sign * baseline.values[0] if baseline else None,
        baseline.stderrs[0] if baseline and baseline.stderrs else None,
    )

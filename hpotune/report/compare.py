"""Whether one trial is better than another, or only luckier: differences with their standard errors.

Two scores on the same items share most of their noise, so their difference is told item by item where items were
kept; the two standard errors alone would make it look several times less sure.
Source: paired differences of means, Student 1908; see also Card et al. 2020, arXiv 2010.06595.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpotune.config.schema.study_config import Objective
from hpotune.records.trial import TrialRow
from hpotune.workspace.folder import StudyFolder

SURE = 1.96
"""Standard errors that count as more than the error allows (two-sided 5 %)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One trial minus another, by one objective, turned so that positive is better."""

    gain: float
    stderr: float | None
    """null where nothing tells the error."""
    paired: bool

    @property
    def sure(self) -> bool | None:
        """Whether the gain is more than the error allows; null where no error is known, and nothing can be said."""
        return None if self.stderr is None else self.gain > SURE * self.stderr


def difference(
    folder: StudyFolder, objective: Objective, index: int, one: TrialRow, other: TrialRow
) -> Difference:
    """`one` minus `other` by objective number `index`."""
    sign = 1.0 if objective.sense == "maximize" else -1.0
    gain = sign * (one.values[index] - other.values[index])
    paired = _paired_stderr(folder, objective, one, other)
    if paired is not None:
        return Difference(gain=gain, stderr=paired, paired=True)
    errors = [row.stderrs[index] if index < len(row.stderrs) else None for row in (one, other)]
    if any(error is None for error in errors):
        return Difference(gain=gain, stderr=None, paired=False)
    return Difference(
        gain=gain, stderr=math.hypot(*(error for error in errors if error is not None)), paired=False
    )


def _paired_stderr(folder: StudyFolder, objective: Objective, one: TrialRow, other: TrialRow) -> float | None:
    """Standard error of the mean difference over the items both trials scored; None where they kept none in common.

    Groups (mmlu) have no items of their own: told by their standard errors instead.
    """
    if objective.task is None:
        return None
    mine, theirs = (_items(folder, objective, row) for row in (one, other))
    if mine is None or theirs is None or len(mine[0]) < 2 or not np.array_equal(mine[0], theirs[0]):
        return None
    delta = mine[1] - theirs[1]
    return float(delta.std(ddof=1) / math.sqrt(len(delta)))


def _items(folder: StudyFolder, objective: Objective, row: TrialRow) -> tuple[np.ndarray, np.ndarray] | None:
    """Document numbers and the objective's metric item by item, each of shape (items,).

    None where none were kept, or where the score is not their mean (perplexity is an exponential of one).
    """
    names = [f"{objective.task}/doc_id", f"{objective.task}/{objective.metric}"]
    try:
        with np.load(folder.trial(row.number) / "items.npz") as kept:
            if not set(names) <= set(kept.files):
                return None
            ids, values = kept[names[0]], kept[names[1]]
    except (OSError, ValueError):
        return None
    is_mean = any(math.isclose(float(values.mean()), value, abs_tol=1e-6) for value in row.values)
    return (ids, values) if is_mean else None


def tied_with(
    folder: StudyFolder, objective: Objective, best: TrialRow, rows: Sequence[TrialRow]
) -> list[TrialRow]:
    """Trials the best cannot be told from, by the first objective; none where no error is known."""
    tied = []
    for row in rows:
        if row.number == best.number or row.kind == "baseline" or row.state != "finished" or row.breaks:
            continue
        found = difference(folder, objective, 0, best, row)
        if found.sure is False:
            tied.append(row)
    return tied

"""Whether one trial is significantly better than another: their difference with its standard error. Prints nothing.

Two scores on the same items share most of their noise. So where the scores of single items were kept, the difference is
paired: its standard error is that of the mean of the items' differences, which is much smaller than that of two
independent means.
Source: paired differences of means, Student 1908; see also Card et al. 2020, arXiv 2010.06595.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpotune.config.schema.study_config import Objective
from hpotune.records.trial import TrialRow
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.item_file import read_items

if TYPE_CHECKING:  # imported in bodies: `status` does without numpy
    import numpy as np
    import numpy.typing as npt

Z_95 = 1.96
"""Standard errors on each side of a two-sided 95 % confidence interval of a normal distribution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One trial minus another by one objective, with the sign chosen so that positive is better."""

    value: float
    stderr: float | None
    """Standard error; None where it is not known."""
    paired: bool
    """Whether the standard error is of the items' differences."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval; None where the standard error is not known."""
        if self.stderr is None:
            return None
        return self.value - Z_95 * self.stderr, self.value + Z_95 * self.stderr

    @property
    def significant(self) -> bool | None:
        """Whether it is significantly better than zero; None where the standard error is not known."""
        return None if self.stderr is None else self.value > Z_95 * self.stderr


def difference(
    folder: StudyFolder, objective: Objective, index: int, one: TrialRow, other: TrialRow
) -> Difference:
    """`one` minus `other` by objective number `index`."""
    sign = 1.0 if objective.sense == "maximize" else -1.0
    value = sign * (one.values[index] - other.values[index])
    paired = _paired_stderr(folder, objective, one, other)
    if paired is not None:
        return Difference(value=value, stderr=paired, paired=True)
    errors = [row.stderrs[index] if index < len(row.stderrs) else None for row in (one, other)]
    known = [error for error in errors if error is not None]
    stderr = math.hypot(*known) if len(known) == 2 else None
    return Difference(value=value, stderr=stderr, paired=False)


def _paired_stderr(folder: StudyFolder, objective: Objective, one: TrialRow, other: TrialRow) -> float | None:
    """Standard error of the mean difference over the items; None where the two did not score the same items.

    Task groups (mmlu) keep no items of their own.
    """
    if objective.task is None:
        return None
    import numpy as np

    mine, theirs = (_items(folder, objective, row) for row in (one, other))
    if mine is None or theirs is None or len(mine[0]) < 2 or not np.array_equal(mine[0], theirs[0]):
        return None
    delta = mine[1] - theirs[1]
    return float(delta.std(ddof=1) / math.sqrt(len(delta)))


def _items(
    folder: StudyFolder, objective: Objective, row: TrialRow
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]] | None:
    """Document numbers and the objective's metric of each item, both of shape (items,).

    None where no items were kept, or where the score is not their mean (perplexity is an exponential of one).
    """
    names = [f"{objective.task}/doc_id", f"{objective.task}/{objective.metric}"]
    found = read_items(folder.trial(row.number) / "items.npz", names)
    if found is None or not len(found[0]):
        return None
    ids, values = found
    is_mean = any(math.isclose(float(values.mean()), value, abs_tol=1e-6) for value in row.values)
    return (ids, values) if is_mean else None


def not_significantly_worse(
    folder: StudyFolder, objective: Objective, best: TrialRow, rows: Sequence[TrialRow]
) -> list[tuple[TrialRow, Difference]]:
    """Trials that `best` is not significantly better than by the first objective, and `best` minus each.

    Trials without a known standard error are left out: nothing can be said of them.
    """
    found = []
    for row in rows:
        if row.number == best.number or row.kind == "baseline" or row.state != "finished" or row.breaks:
            continue
        delta = difference(folder, objective, 0, best, row)
        if delta.significant is False:
            found.append((row, delta))
    return found

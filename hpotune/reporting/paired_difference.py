"""Whether one trial is significantly better than another: their difference with its standard error. Prints nothing.

Two scores on the same items share most of their noise. So where the scores of single items were kept, the difference is
paired: its standard error is that of the mean of the items' differences, which is much smaller than that of two
independent means.
Source: paired differences of means, Student 1908; see also Card et al. 2020, arXiv 2010.06595.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpotune.records.trial import TrialRow

if TYPE_CHECKING:
    from hpotune.reporting.score_items import ItemReader, ScoreItems
    from hpotune.statistics.paired_tests import PairedTest

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


def difference(read_items: ItemReader, index: int, one: TrialRow, other: TrialRow) -> Difference:
    """`one` minus `other` by the reader's objective, number `index` of the study's."""
    sign = 1.0 if read_items.objective.sense == "maximize" else -1.0
    value = sign * (one.values[index] - other.values[index])
    paired = _paired_stderr(read_items(one), read_items(other))
    if paired is not None:
        return Difference(value=value, stderr=paired, paired=True)
    errors = [row.stderrs[index] if index < len(row.stderrs) else None for row in (one, other)]
    known = [error for error in errors if error is not None]
    stderr = math.hypot(*known) if len(known) == 2 else None
    return Difference(value=value, stderr=stderr, paired=False)


def item_test(read_items: ItemReader, one: TrialRow, other: TrialRow) -> PairedTest | None:
    """`one` against `other` by their items; None where they have not the same ones, or not with equal weights."""
    from hpotune.reporting.score_items import same_items  # numpy: `status` does without
    from hpotune.statistics.paired_tests import paired_test

    mine, theirs = read_items(one), read_items(other)
    if mine is None or theirs is None or not same_items(mine, theirs):
        return None
    if mine.weights.min() < mine.weights.max():
        return None
    sign = 1.0 if read_items.objective.sense == "maximize" else -1.0
    return paired_test(sign * mine.values, sign * theirs.values, clusters=mine.clusters)


def _least_stderr(one: ScoreItems) -> float:
    """The standard error of the difference of two trials that answer every item alike: not zero, as items that would
    tell them apart may be among those that were not asked.

    Of counts (0 and 1) as if half an item spoke for each. Source: Agresti and Min 2005, "Simple improved confidence
    intervals for comparing matched proportions".
    """
    import numpy as np

    if not np.isin(one.values, (0, 1)).all():
        return 0.0
    share = float(one.weights.max())  # 1 / items where all count alike
    return share / (1 + 2 * share)


def _paired_stderr(one: ScoreItems | None, other: ScoreItems | None) -> float | None:
    """Standard error of the mean difference over the items; None where the two did not score the same items."""
    from hpotune.reporting.score_items import same_items  # numpy: `status` does without
    from hpotune.statistics.score_table import table_of_items

    if one is None or other is None or not same_items(one, other):
        return None
    delta = (one.values - other.values)[None]
    if not delta.any():
        return _least_stderr(one)
    table = table_of_items(delta, clusters=one.clusters, weights=one.weights)
    return table.stderr(table.parts[0])

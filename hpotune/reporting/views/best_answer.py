"""What the statistics say of the best trial: its score and gain corrected for the choice, and the trials as good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpotune.records.trial import TrialRow
from hpotune.reporting.paired_difference import Difference, difference

if TYPE_CHECKING:
    from hpotune.reporting.score_items import ItemReader
    from hpotune.statistics.winner import Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedTrial:
    """A trial, and the best trial minus it by what trials are ranked by."""

    number: int
    difference: Difference


_COSTS = ("trainable_parameters", "train_seconds", "peak_memory_gb")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """The cheapest of the trials that may be the best one."""

    number: int
    costs: Mapping[str, float]
    """Trained parameters, seconds of training, GB of memory on the fullest GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrectedScore:
    """A score or a gain, corrected for the choice of the best of many trials (statistics/winner.py)."""

    value: float
    """Median-unbiased."""
    low: float
    """The 95 % confidence interval."""
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrectedGain(CorrectedScore):
    """The best trial minus the base model, corrected for the choice; positive is better."""

    at_least: float
    """The one-sided 95 % lower bound."""

    @property
    def significant(self) -> bool:
        """Whether the best trial is better than the base model, at a level of 5 % that allows for the choice."""
        return self.at_least > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class BestAnswer:
    """What the statistics say of the best trial; empty where its standard error is not known."""

    expected: CorrectedScore | None = None
    gain: CorrectedGain | None = None
    tied: tuple[ComparedTrial, ...] = ()
    recommended: Recommendation | None = None


def best_answer(
    read_items: ItemReader, ordered: Sequence[TrialRow], baseline: TrialRow | None, *, raced: int = 0
) -> BestAnswer:
    """What the statistics say of the first of these trials. `ordered`: with what they are ranked by as their value.

    `raced`: further trials, which lost to a better one before all their items were scored; it was chosen from them too.
    """
    from hpotune.reporting.score_items import score_table
    from hpotune.statistics.best_set import MOST, best_set
    from hpotune.statistics.winner import winner

    sign = 1.0 if read_items.objective.sense == "maximize" else -1.0
    best, compared = ordered[0], ordered[:MOST]
    table = score_table(read_items, compared, baseline)
    if table is None:
        return BestAnswer()
    found = winner(table, 0, trials=len(ordered) + raced)
    ends = sorted((sign * found.score.low, sign * found.score.high))
    gain = found.gain
    chosen = [compared[position] for position in best_set(table, trials=len(ordered) + raced)]
    return BestAnswer(
        expected=CorrectedScore(value=sign * found.score.value, low=ends[0], high=ends[1]),
        gain=_corrected(gain, difference(read_items, 0, best, baseline)) if gain and baseline else None,
        tied=tuple(
            ComparedTrial(number=row.number, difference=difference(read_items, 0, best, row))
            for row in chosen
            if row.number != best.number
        ),
        recommended=cheapest(chosen),
    )


def _corrected(gain: Estimate, measured: Difference) -> CorrectedGain:
    """The gain; where the two answered every item alike, with the interval of their measured difference."""
    if gain.low < gain.high or measured.interval is None:
        return CorrectedGain(value=gain.value, low=gain.low, high=gain.high, at_least=gain.at_least)
    low, high = measured.interval
    return CorrectedGain(value=gain.value, low=low, high=high, at_least=low)


def cheapest(rows: Sequence[TrialRow]) -> Recommendation | None:
    """The trial with the fewest trained parameters, then the shortest training, then the least memory."""
    costs = [[row.metrics.get(name) for name in _COSTS] for row in rows]
    known = [[cost for cost in one if isinstance(cost, (int, float))] for one in costs]
    if any(len(one) < len(_COSTS) for one in known):
        return None
    position = min(range(len(rows)), key=lambda index: known[index])
    return Recommendation(number=rows[position].number, costs=dict(zip(_COSTS, known[position], strict=True)))

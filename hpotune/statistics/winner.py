"""What the best of n trials is worth: its score and its gain over the base model, corrected for having been chosen.

The best of many noisy scores is too good on average (the winner's curse), and an ordinary interval around it covers
the truth less often than it says: the best of 50 equal trials in 79 % instead of 95 %. The hybrid method conditions
on the event that this trial had the highest score, which truncates the distribution of its score: much where others
are close, hardly where it won by far. It is combined with simultaneous intervals, which bound its length. A
Bonferroni or Dunnett interval alone would be valid too, but would pay for all n trials even where the winner stands
alone.

Source: Andrews, Kitagawa and McCloskey 2024, "Inference on winners", Quarterly Journal of Economics 139 (hybrid
intervals and median-unbiased estimates); Lee, Sun, Sun and Taylor 2016, "Exact post-selection inference" (the
truncation points).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq  # type: ignore[import-untyped]
from scipy.special import log_ndtr, ndtri  # type: ignore[import-untyped]

from hpotune.statistics.score_table import Floats, ScoreTable

LEVEL = 0.05
SIMULTANEOUS_SHARE = 0.1
"""The share of LEVEL that the simultaneous part takes, as the authors advise."""
BOUND_SHARE = 0.02
"""The same for the one-sided bound, which decides whether the winner is better: a smaller share finds more (at 50
trials 77.8 % instead of 77.3 % of effects of three standard errors), and the bound's length decides nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """An estimate that is corrected for the choice of the best trial."""

    observed: float
    """As measured, uncorrected."""
    value: float
    """Median-unbiased: too high as often as too low."""
    low: float
    """The 95 % interval, two-sided."""
    high: float
    at_least: float
    """The lower bound that holds with a probability of 95 %, one-sided."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Winner:
    """The best trial of a table."""

    index: int
    """Its position in the table."""
    score: Estimate
    """Its score on further items of the same kind."""
    gain: Estimate | None
    """Its score minus the base model's; None without a base model."""

    @property
    def better(self) -> bool | None:
        """Whether it is better than the base model, at a one-sided level of 5 % over all studies without an effect."""
        return None if self.gain is None else self.gain.at_least > 0


def winner(table: ScoreTable, index: int, *, trials: int | None = None) -> Winner:
    """The corrected score and gain of the trial with the highest score, number `index` of the table.

    `trials`: of how many it was chosen, where the table holds only the best of them.
    """
    count = trials or len(table.values)
    values = _without_ties(table, index)
    gaps = np.delete(values[index] - values, index)
    if not table.by_items and gaps.min(initial=1.0) == 0:
        return _of_equal_scores(table, index, trials=count)
    apart = np.delete(table.parts[index] - table.parts, index, axis=0)
    score = _estimate(table.values[index], values[index], table.parts[index], gaps, apart, trials=count)
    if table.base is None or table.base_parts is None:
        return Winner(index=index, score=score, gain=None)
    gain = _estimate(
        table.values[index] - table.base,
        values[index] - table.base,
        table.parts[index] - table.base_parts,
        gaps,
        apart,
        trials=count,
    )
    return Winner(index=index, score=score, gain=gain)


def _of_equal_scores(table: ScoreTable, index: int, *, trials: int) -> Winner:
    """The winner of a table in which another trial has exactly its score, and the items are not known.

    Equal scores say that the errors are not independent, and the distribution of a winner by no margin depends on how
    they are correlated: conditional intervals shrank to a point far below all scores. The simultaneous interval holds
    for any correlation; its value is the measured one.
    """
    score = _simultaneous(table.values[index], table.parts[index], trials=trials)
    if table.base is None or table.base_parts is None:
        return Winner(index=index, score=score, gain=None)
    apart = table.parts[index] - table.base_parts
    gain = _simultaneous(table.values[index] - table.base, apart, trials=trials)
    return Winner(index=index, score=score, gain=gain)


def simultaneous_estimate(observed: float, stderr: float, *, trials: int) -> Estimate:
    """The estimate with Bonferroni's interval over all trials."""
    two_sided, one_sided = (-float(ndtri(LEVEL / sides / trials)) * stderr for sides in (2, 1))
    return Estimate(
        observed=observed,
        value=observed,
        low=observed - two_sided,
        high=observed + two_sided,
        at_least=observed - one_sided,
    )


def _simultaneous(observed: float, parts: Floats, *, trials: int) -> Estimate:
    return simultaneous_estimate(float(observed), math.sqrt(float(parts @ parts)), trials=trials)


def _without_ties(table: ScoreTable, index: int) -> Floats:
    """The scores, with less than half a step added to each, so that one trial alone is the best.

    Scores that are counts are often equal, and the theory knows no ties: without this, intervals of the best of 200
    equal trials covered in 79 % instead of 95 %. Which of equal trials is called the best does not depend on their
    items.
    """
    moved = table.values + np.random.default_rng(0).uniform(-0.5, 0.5, len(table.values)) * table.step
    ahead = int(moved.argmax())
    moved[[index, ahead]] = moved[[ahead, index]]
    return moved


def _estimate(
    observed: float, moved: float, parts: Floats, gaps: Floats, apart: Floats, *, trials: int
) -> Estimate:
    """The estimate of one linear function of the scores, whose contributions are `parts`.

    Shapes: `gaps` (others,), the winner's lead over each; `apart` (others, clusters), the lead's contributions.
    """
    stderr = math.sqrt(float(parts @ parts))
    slopes = apart @ parts / stderr**2 if stderr else np.zeros(len(gaps))
    found = conditional_estimate(float(observed), float(moved), stderr, gaps, slopes, trials=trials)
    return _of_near_tie(found, stderr, trials=trials) if trials > 1 else found


def _of_near_tie(found: Estimate, stderr: float, *, trials: int) -> Estimate:
    """The estimate, wider where its interval lies below what any choice among so many trials can explain.

    A lead of almost nothing leaves a conditional interval that is almost a point, far below all scores: it covers as
    often as it says over all studies, but says nothing about this one. There the simultaneous interval is joined to it,
    and the value is the measured one less the mean excess of the best of equal trials, the largest there is.
    """
    least = found.observed - mean_of_best(trials) * stderr
    if found.high >= least:
        return found
    wide = simultaneous_estimate(found.observed, stderr, trials=trials)
    return replace(found, value=least, low=min(found.low, wide.low), high=wide.high)


def mean_of_best(trials: int) -> float:
    """The mean of the highest of so many independent standard normal values; Blom's approximation (1958)."""
    return float(ndtri((trials - 0.375) / (trials + 0.25)))


def conditional_estimate(
    observed: float, moved: float, stderr: float, gaps: Floats, slopes: Floats, *, trials: int
) -> Estimate:
    """The estimate of a value that was looked at because several gaps are positive.

    Shapes: `gaps` and `slopes` (gaps,): `slopes` are the covariances of the gaps and the value, divided by the value's
    variance. `observed`: the value; `moved`: the same without ties.
    """
    if stderr == 0:  # every item has the same score
        return Estimate(observed=observed, value=observed, low=observed, high=observed, at_least=observed)
    rising, falling = slopes > _FLAT, slopes < -_FLAT
    lowest = float(np.max(moved - gaps[rising] / slopes[rising], initial=-math.inf))
    highest = float(np.min(moved - gaps[falling] / slopes[falling], initial=math.inf))
    share = LEVEL * SIMULTANEOUS_SHARE if trials > 1 else 0.0  # of one trial nothing was chosen
    level = (LEVEL - share) / (1 - share)
    bound_share = LEVEL * BOUND_SHARE if trials > 1 else 0.0
    bound_level = (LEVEL - bound_share) / (1 - bound_share)

    def mean_at(probability: float, under: float, over: float) -> float:
        """The mean at which a value up to the observed one has this probability.

        `under`, `over`: standard errors by which the simultaneous part lets the value lie below and above its mean.
        """

        def distance(mean: float) -> float:  # falls as the mean rises
            ends = max(lowest, mean - under * stderr), min(highest, mean + over * stderr)
            return truncated_normal_cdf(moved, mean, stderr, *ends) - probability

        low, high = moved - over * stderr * (1 - 1e-9), moved + under * stderr * (1 - 1e-9)
        if distance(low) <= 0:
            return low
        if distance(high) >= 0:
            return high
        return float(brentq(distance, low, high, xtol=1e-6 * stderr))

    both = -float(ndtri(share / 2 / trials)) if share else _FAR
    # a bound from below needs one side only
    above = -float(ndtri(bound_share / trials)) if bound_share else _FAR
    return Estimate(
        observed=observed,
        value=mean_at(0.5, both, both),
        low=mean_at(1 - level / 2, both, both),
        high=mean_at(level / 2, both, both),
        at_least=mean_at(1 - bound_level, _FAR, above),
    )


_FAR = 8.0
"""Standard errors beyond which a normal value never lies."""
_FLAT = 1e-9
"""Slopes below this say that a lead does not depend on the estimated value."""


def truncated_normal_cdf(x: float, mean: float, stderr: float, low: float, high: float) -> float:
    """P(X <= x) for a normal X that is known to lie between `low` and `high`; in logarithms, since tails are small."""
    lowest, highest, position = ((end - mean) / stderr for end in (low, high, x))
    if lowest > 0:  # mirrored into the left tail, where log_ndtr is exact
        return 1 - truncated_normal_cdf(-x, -mean, stderr, -high, -low)
    logs = [float(log_ndtr(end)) for end in (lowest, highest, position)]
    under, upto, whole = math.exp(logs[0] - logs[1]), math.exp(logs[2] - logs[1]), 1.0
    if whole <= under:
        return 0.5
    return min(max((upto - under) / (whole - under), 0.0), 1.0)

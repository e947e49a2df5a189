"""Which finalist is the best one over seeds and items, what it is worth, and whether it is better than the base model.

The finalists were chosen by the search among n trials, and trained again with new seeds. What a finalist owed to the
seed of its search is gone from the new scores. What it owed to the items is not: the same items chose it, and a setting
that suits these items by chance suits them with every seed. So the estimates are conditional on the choice, as those of
statistics/winner.py are, and the data say how much that matters: the correction depends on the covariance of the score
in the search with the mean of the repeats, which is that of the items' contributions. Where seeds alone made the
difference in the search, that covariance is small, and next to nothing is corrected (data fission or carving: the
repeats are the part of the data that the choice has not used).

Conditions: each finalist that was taken for its score was ahead of each trial that was not taken; and, for the winner,
its mean is the highest of the finalists.

Source: Lee, Sun, Sun and Taylor 2016 (conditioning on linear inequalities); Fithian, Sun and Taylor 2014, "Optimal
inference after model selection" (data carving); Andrews, Kitagawa and McCloskey 2024 (hybrid intervals).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hpotune.statistics.best_set import best_set
from hpotune.statistics.score_table import Floats, ScoreTable
from hpotune.statistics.seed_spread import (
    CrossedError,
    RepeatedSetting,
    SeedSpread,
    crossed_error,
    seed_spread,
)
from hpotune.statistics.winner import Estimate, conditional_estimate, simultaneous_estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """How the search chose the finalists."""

    table: ScoreTable
    """The trials of the search, on the same items."""
    finalists: Sequence[int]
    """Positions of the finalists in the table."""
    by_score: Sequence[int]
    """Positions of those that were taken for their score, not for their cost."""
    trials: int
    """Of how many they were chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatedScore:
    """A finalist over seeds and items."""

    score: Estimate
    error: CrossedError
    gain: Estimate | None
    """Over the base model; None without one."""
    gain_error: CrossedError | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatedFinalists:
    """The finalists over seeds and items, in the order in which they were given."""

    spread: SeedSpread
    scores: tuple[RepeatedScore, ...]
    winner: int
    """Position of the one with the highest mean."""
    differences: tuple[Estimate, ...]
    """The winner minus each finalist, corrected for the choice of the finalists."""
    may_be_best: tuple[int, ...]
    """Positions of those that may be the best finalist, a set that holds it with a probability of 95 %; best first."""


def repeated_finalists(settings: Sequence[RepeatedSetting], choice: Choice) -> RepeatedFinalists:
    """The answer of the repeats. `settings`: of the finalists, in the order of `choice.finalists`.

    Raises: ValueError where no setting has two seeds.
    """
    spread = seed_spread(settings)
    means = np.array([one.mean for one in settings])
    parts = np.array([one.mean_parts for one in settings])
    best = int(means.argmax())
    conditions = _conditions(choice, width=parts.shape[1] + len(settings))
    estimates = _Estimates(
        settings=settings,
        spread=spread,
        means=means,
        parts=parts,
        choice=choice,
        best=best,
        conditions=conditions,
    )
    base, base_parts = choice.table.base, choice.table.base_parts
    scores = []
    for position in range(len(settings)):
        score, error = estimates.of(position, 0.0, np.zeros(parts.shape[1]))
        gain, gain_error = None, None
        if base is not None and base_parts is not None:
            gain, gain_error = estimates.of(position, base, base_parts)
        scores.append(RepeatedScore(score=score, error=error, gain=gain, gain_error=gain_error))
    pairs = [
        crossed_error(parts[best] - parts[position], [settings[best].seeds, one.seeds], spread)
        for position, one in enumerate(settings)
    ]
    widest = max(
        (pair.widen(len(settings)) for position, pair in enumerate(pairs) if position != best), default=1.0
    )
    own = [spread.variance / one.seeds for one in settings]
    table = ScoreTable(values=means, parts=np.hstack([parts, np.diag(np.sqrt(own))]))
    return RepeatedFinalists(
        spread=spread,
        scores=tuple(scores),
        winner=best,
        differences=tuple(map(estimates.ahead_of, range(len(settings)), pairs)),
        may_be_best=tuple(best_set(table, widen=widest)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Estimates:
    """The finalists' means, and what is needed to correct one of them for the choice."""

    settings: Sequence[RepeatedSetting]
    spread: SeedSpread
    means: Floats
    parts: Floats
    choice: Choice
    best: int
    conditions: tuple[Floats, Floats]
    """Leads in the search, and their contributions; none by the seeds of the repeats."""

    def of(self, position: int, base: float, base_parts: Floats) -> tuple[Estimate, CrossedError]:
        """A finalist's mean, minus the base model's score where that is not 0.

        Where only standard errors are known, their correlation with the search is not, and the interval is Bonferroni's
        over all trials. Where not even they are known, the estimate is of the score on these very items.
        """
        choice, setting = self.choice, self.settings[position]
        value, parts = float(self.means[position] - base), self.parts[position] - base_parts
        error = crossed_error(parts, [setting.seeds], self.spread)
        if not choice.table.by_items and parts.any():
            return simultaneous_estimate(value, error.stderr * error.widen(), trials=choice.trials), error
        widen = error.widen(2 * len(self.settings) if position == self.best else 1)
        interval = self._conditional(position, value, parts, error, widen=widen, leads=True)
        expected = self._expected(position, value, parts, error)
        low, high = min(interval.low, expected), max(interval.high, expected)
        return replace(interval, value=expected, low=low, high=high), error

    def _expected(self, position: int, value: float, parts: Floats, error: CrossedError) -> float:
        """The estimate of the value itself, by the standard error as measured: what Student's t adds widens intervals.

        The lead over the other finalists takes at most that lead away: where they are all equal, their common mean is
        the best estimate, while the median-unbiased one falls without bound as the lead vanishes.
        """
        searched = self._conditional(position, value, parts, error, widen=1.0, leads=False).value
        if position != self.best:
            return searched
        chosen = self._conditional(position, value, parts, error, widen=1.0, leads=True).value
        lead = float(self.means[self.best] - self.means.mean())
        return min(max(chosen, searched - lead), searched)

    def _conditional(
        self, position: int, value: float, parts: Floats, error: CrossedError, *, widen: float, leads: bool
    ) -> Estimate:
        """The estimate given the leads in the search and, with `leads`, the winner's over the other finalists."""
        choice, setting = self.choice, self.settings[position]
        # what Student's t adds counts as spread between seeds, in the conditions too
        added = (widen**2 - 1) * error.stderr**2
        own = np.diag(np.sqrt([self.spread.variance / one.seeds + added for one in self.settings]))
        wide, stderr = np.hstack([self.parts, own]), widen * error.stderr
        contributions = np.append(parts, own[position])
        gaps, apart = self.conditions
        # leads in the search share items with the value, not its seeds: their covariance is known, as is the variance
        slopes = apart @ contributions / error.stderr**2 if stderr else np.zeros(len(gaps))
        if leads and position == self.best and stderr:
            gaps = np.append(gaps, _leads(self.means, self.best, step=choice.table.step / setting.seeds))
            ahead = np.delete(wide[self.best] - wide, self.best, axis=0)
            slopes = np.append(slopes, ahead @ contributions / stderr**2)
        return conditional_estimate(value, value, stderr, gaps, slopes, trials=choice.trials)

    def ahead_of(self, position: int, error: CrossedError) -> Estimate:
        """The winner minus another finalist."""
        value = float(self.means[self.best] - self.means[position])
        gaps, apart = self.conditions
        parts = np.append(self.parts[self.best] - self.parts[position], np.zeros(len(self.settings)))
        stderr = error.widen() * error.stderr
        slopes = apart @ parts / error.stderr**2 if stderr else np.zeros(len(gaps))
        return conditional_estimate(value, value, stderr, gaps, slopes, trials=self.choice.trials)


def _leads(means: Floats, best: int, *, step: float) -> Floats:
    """By how much the winner is ahead of the other finalists in the repeats. Shape: (finalists - 1,)."""
    moves = np.random.default_rng(1).uniform(-0.5, 0.5, len(means)) * step
    return np.asarray(np.abs(np.delete(means[best] - means + moves[best] - moves, best)))


def _conditions(choice: Choice, *, width: int) -> tuple[Floats, Floats]:
    """By how much each finalist was ahead of each other trial in the search, with the contributions to these leads.

    Shapes: (leads,), (leads, width). Equal scores are moved apart by less than a step, as in winner.py.
    """
    table, chosen = choice.table, set(choice.finalists)
    others = [position for position in range(len(table.values)) if position not in chosen]
    pairs = [(one, other) for one in choice.by_score for other in others]
    if not pairs or not table.by_items:
        return np.zeros(0), np.zeros((0, width))
    ahead, behind = [one for one, _ in pairs], [other for _, other in pairs]
    moves = np.random.default_rng(0).uniform(-0.5, 0.5, (2, len(pairs))) * table.step
    gaps = np.abs(table.values[ahead] - table.values[behind] + moves[0] - moves[1])
    apart = table.parts[ahead] - table.parts[behind]
    return gaps, np.hstack([apart, np.zeros((len(pairs), width - apart.shape[1]))])

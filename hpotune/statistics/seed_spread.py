"""Settings that were trained several times: the spread between seeds, apart from the error over items.

A score of setting s, trained with seed r, on n items is

    score = expected score + error of the items + effect of the seed + error of the items that this seed alone has

The first error is the same for all seeds of a setting, which answer the same items (items and seeds are crossed); the
other two are new with each seed. So the mean over m seeds has the variance

    V = |mean contributions of the items|^2 + spread^2 / m        (contributions: statistics/score_table.py)

whose first term holds the items' error once and a share 1/m of what each seed has alone. The spread between seeds is a
variance component by the method of moments: the variance of the scores between seeds, less what they differ by because
of items. It is pooled over the settings, since two or three seeds of one say little, and cannot be negative.

How certain V is depends on the few seeds: it gets Satterthwaite's degrees of freedom, and Student's t.

Source: Searle, Casella and McCulloch 1992, "Variance components" (two-way crossed random effects, method of moments);
Satterthwaite 1946, "An approximate distribution of estimates of variance components"; Baayen, Davidson and Bates 2008
(subjects and items as crossed random effects); Bouthillier et al. 2021, "Accounting for variance in machine learning
benchmarks" (seeds as a source of error). Owen 2007, "The pigeonhole bootstrap", shows that resampling both factors
counts the items' part of single seeds twice; here it is subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit  # type: ignore[import-untyped]

from hpotune.statistics.score_table import Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatedSetting:
    """One setting: its scores with several seeds. Larger is better."""

    scores: Floats
    """Shape (seeds,)."""
    parts: Floats
    """What each cluster of items contributes to the errors of the scores. Shape (seeds, clusters); zeros: not known."""

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len(self.scores)

    @property
    def mean(self) -> float:
        """The mean over its seeds."""
        return float(self.scores.mean())

    @property
    def mean_parts(self) -> Floats:
        """The contributions to the error of the mean. Shape (clusters,)."""
        return np.asarray(self.parts.mean(axis=0))


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedSpread:
    """The spread between seeds, pooled over settings."""

    total: float
    """Variance of the scores between seeds on these items."""
    of_items: float
    """The part of it that is due to the items: seeds differ in which items they answer right."""
    degrees: int
    """Degrees of freedom of `total`."""

    @property
    def variance(self) -> float:
        """The variance of a trained model's expected score between seeds."""
        return max(0.0, self.total - self.of_items)

    @property
    def stderr(self) -> float:
        """Its root: how much the expected scores of two trainings of one setting differ."""
        return math.sqrt(self.variance)


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossedError:
    """The error of a mean over seeds and items, or of a difference of two."""

    items: float
    """Variance by the items, the part of single seeds included."""
    seeds: float
    """Variance by the spread between seeds."""
    degrees: float
    """Satterthwaite's degrees of freedom; infinite where no seeds take part."""

    @property
    def stderr(self) -> float:
        """The standard error over seeds and items."""
        return math.sqrt(self.items + self.seeds)

    def widen(self, choices: int = 1) -> float:
        """By how much longer an interval is than that of a known standard error (Student's t).

        `choices`: among how many the value was chosen by the estimates themselves. Then the tails further out count.
        """
        if math.isinf(self.degrees):
            return 1.0
        probability = 1 - 0.025 / choices
        return max(1.0, float(stdtrit(self.degrees, probability) / ndtri(probability)))

    @property
    def seed_share(self) -> float:
        """The share of the variance that is due to seeds, from 0 to 1."""
        whole = self.items + self.seeds
        return self.seeds / whole if whole else 0.0


def seed_spread(settings: Sequence[RepeatedSetting]) -> SeedSpread:
    """The spread between seeds, pooled over settings.

    Raises: ValueError where no setting has two seeds.
    """
    degrees = sum(one.seeds - 1 for one in settings)
    if degrees < 1:
        raise ValueError("a spread between seeds needs two seeds of a setting")
    between = sum(float(((one.scores - one.mean) ** 2).sum()) for one in settings)
    of_items = sum(float(((one.parts - one.mean_parts) ** 2).sum()) for one in settings)
    return SeedSpread(total=between / degrees, of_items=of_items / degrees, degrees=degrees)


def crossed_error(parts: Floats, seeds: Sequence[int], spread: SeedSpread) -> CrossedError:
    """The error of a mean (one number of seeds), or of a difference of means, whose contributions are `parts`.

    Shape: `parts` (clusters,). `seeds`: of each setting that takes part; the base model has none.
    """
    items = float(parts @ parts)
    share = sum(1 / count for count in seeds)
    by_seeds = spread.variance * share
    uncertain = spread.total * share
    whole = items + by_seeds
    degrees = spread.degrees * (whole / uncertain) ** 2 if uncertain > 0 else math.inf
    return CrossedError(items=items, seeds=by_seeds, degrees=max(degrees, float(spread.degrees)))

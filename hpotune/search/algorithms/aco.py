"""Ant colony for mixed spaces: an archive of the best points; each ant picks one and draws near it.

Numbers: a Gaussian around the picked point, as wide as the archive lies from it (Socha and Dorigo 2008, EJOR 185,
eqs. 2, 4, 5). Ordered values: the same on their order, rounded. Categories: the choice with its weight in the archive,
those that it lacks with a share of their own (Liao et al. 2014, IEEE TEVC 18(4), ACO_MV, eqs. 5 and 6).
"""

from __future__ import annotations

import numpy as np

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.options import float_option
from hpotune.search.base.population import PopulationHistory, PopulationSampler, reflected
from hpotune.search.base.sampler import SamplerSetup, SamplingContext
from hpotune.search.base.unit_cube import Axis, Cube

LOCALITY = 0.05
"""q: how much the best are preferred (Liao et al. tuned it to 0.051; 1e-4 of Socha and Dorigo follows one point)."""
SPEED = 0.68
"""xi: the width of the Gaussian in mean distances (tuned to 0.6795, ibid.; 0.85 in Socha and Dorigo)."""


class ColonySampler(PopulationSampler):
    """An ant a trial; the archive is the best points of the store."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        self.locality = float_option(self.setup.options, "locality", LOCALITY, low=1e-6, high=10.0)
        self.speed = float_option(self.setup.options, "speed", SPEED, low=0.0, high=10.0)

    def next_position(
        self, cube: Cube, history: PopulationHistory, context: SamplingContext
    ) -> np.ndarray | None:
        """Where the ant goes."""
        archive = sorted(history.evaluated, key=lambda move: (-move.gain, move.rank))[: self.size]
        if len(archive) < 2:
            return None
        points = np.array([move.point for move in archive])
        ranks = np.arange(len(points))
        width = self.locality * self.size
        weights = np.exp(-(ranks**2) / (2.0 * width**2)) / (width * np.sqrt(2.0 * np.pi))
        shares = weights / weights.sum()
        guide = points[context.rng.choice(len(points), p=shares)]
        spread = self.speed * np.abs(points - guide).sum(axis=0) / (len(points) - 1)
        point = reflected(guide + spread * context.rng.standard_normal(len(cube)))
        for index in np.flatnonzero(cube.unordered):
            chances = self._chances(cube.axes[index], points[:, index], weights)
            point[index] = (context.rng.choice(len(chances), p=chances) + 0.5) / len(chances)
        return point

    def _chances(self, axis: Axis, column: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Of each category. Shape (choices,)."""
        size = axis.size or 1
        choices = np.minimum((column * size).astype(int), size - 1)
        counts = np.bincount(choices, minlength=size)
        absent = int((counts == 0).sum())
        found = np.zeros(size)
        for choice in np.flatnonzero(counts):
            found[choice] = weights[choices == choice].max() / counts[choice]
        if absent:
            found += self.locality / absent
        return np.asarray(found / found.sum())


ALGORITHM = Algorithm(
    make=ColonySampler,
    when="mixed spaces with many categories, a hundred trials or more",
    cost="0.005 s",
    parallel="each worker sends an ant; nobody waits for a generation",
    source="Socha and Dorigo 2008, EJOR 185; Liao et al. 2014, IEEE TEVC 18(4)",
    options={
        "population": "points of the archive (default: a fifth of the budget, at most 14, at least the workers)",
        "locality": f"q: a small one follows the best points only (default {LOCALITY})",
        "speed": f"xi: a small one draws close to the archive (default {SPEED})",
    },
)

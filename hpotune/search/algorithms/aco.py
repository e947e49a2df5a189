"""Ant colony optimization for mixed spaces (ACO_MV): ants sample near a solution of an archive of the best points.

Numbers: a normal distribution around a solution chosen by rank; its standard deviation is the mean distance of the
archive from it, times xi (Socha and Dorigo 2008, EJOR 185, equations 2, 4, 5). Ordered values: the same in their order,
rounded. Categories: by their weights in the archive, with a share for those that it does not contain (Liao et al. 2014,
IEEE TEVC 18(4), equations 5 and 6).
"""

from __future__ import annotations

import numpy as np

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.options import float_option
from hpotune.search.base.population import PopulationHistory, PopulationSampler, reflected
from hpotune.search.base.sampler import SamplerSetup, SamplingContext
from hpotune.search.base.unit_cube import Axis, Cube

LOCALITY = 0.05
"""q: small values prefer the best solutions (Liao et al. tuned it to 0.051; Socha and Dorigo's 1e-4 follows one)."""
SPEED = 0.68
"""xi: standard deviation in mean distances (tuned to 0.6795 by Liao et al.; 0.85 in Socha and Dorigo)."""


class ColonySampler(PopulationSampler):
    """Each trial is an ant; the archive is the best evaluated trials of the study."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        self.locality = float_option(self.setup.options, "locality", LOCALITY, low=1e-6, high=10.0)
        self.speed = float_option(self.setup.options, "speed", SPEED, low=0.0, high=10.0)

    def next_position(
        self, cube: Cube, history: PopulationHistory, context: SamplingContext
    ) -> np.ndarray | None:
        """The solution that the ant samples; None while the archive has fewer than two. Shape (d,)."""
        archive = sorted(history.evaluated, key=lambda one: (-one.gain, one.rank))[: self.size]
        if len(archive) < 2:
            return None
        points = np.array([one.point for one in archive])
        # the weight of rank l is a normal density with standard deviation q k, k the archive size (equation 2)
        ranks = np.arange(len(points))
        width = self.locality * self.size
        weights = np.exp(-(ranks**2) / (2.0 * width**2)) / (width * np.sqrt(2.0 * np.pi))
        shares = weights / weights.sum()
        guide = points[context.rng.choice(len(points), p=shares)]
        # per axis, xi times the mean distance of the others from the guide (equation 5)
        spread = self.speed * np.abs(points - guide).sum(axis=0) / (len(points) - 1)
        point = reflected(guide + spread * context.rng.standard_normal(len(cube)))
        for index in np.flatnonzero(cube.unordered):
            probabilities = self._category_probabilities(cube.axes[index], points[:, index], weights)
            choice = context.rng.choice(len(probabilities), p=probabilities)
            point[index] = (choice + 0.5) / len(probabilities)
        return point

    def _category_probabilities(self, axis: Axis, column: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Probability of each category. Shapes: `column`, `weights` (archive,) -> (choices,)."""
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
    parallel="each worker samples one ant; no worker waits for a generation",
    source="Socha and Dorigo 2008, EJOR 185; Liao et al. 2014, IEEE TEVC 18(4)",
    options={
        "population": "size of the archive (default: a fifth of the budget, at most 14, at least the workers)",
        "locality": f"q: small values prefer the best solutions of the archive (default {LOCALITY})",
        "speed": f"xi: small values sample close to the archive (default {SPEED})",
    },
)

"""DE, differential evolution: a member is replaced where a trial vector made from others is no worse than it.

Selection leaves each member's best point so far: these are the population.
    mutant = base + F * sum of differences;   trial vector: each coordinate from the mutant with probability CR
Source: Storn and Price 1997, J. Global Optimization 11; current-to-best/1: Price, Storn and Lampinen 2005. Coordinates
outside the cube are set halfway between the member and the bound (ibid., 4.3.1). Categories have no differences: where
those of a pair differ, the mutant takes the first one's with probability F.
"""

from __future__ import annotations

import numpy as np

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.options import choice_option, float_option
from hpotune.search.base.population import Individual, PopulationHistory, PopulationSampler
from hpotune.search.base.sampler import SamplerSetup, SamplingContext
from hpotune.search.base.unit_cube import Cube

STRATEGIES = ("current-to-best/1", "rand/1")
FACTOR, CROSSOVER = 0.5, 0.9
"""F and CR, Storn and Price's first choice; a high CR keeps dependent parameters together."""


class DifferenceSampler(PopulationSampler):
    """Either strategy, with binomial crossover."""

    min_population = 4

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        self.strategy = choice_option(self.setup.options, "strategy", STRATEGIES[0], allowed=STRATEGIES)
        self.factor = float_option(self.setup.options, "factor", FACTOR, low=0.0, high=2.0)
        self.crossover = float_option(self.setup.options, "crossover", CROSSOVER, low=0.0, high=1.0)

    def next_position(
        self, cube: Cube, history: PopulationHistory, context: SamplingContext
    ) -> np.ndarray | None:
        """The trial vector of the member; None while too few members have results. Shape (d,)."""
        best = _population(history, self.size)
        others = [individual for member, individual in best.items() if member != context.rank % self.size]
        target = best.get(context.rank % self.size)
        if target is None or len(others) < 3:
            return None
        one, two, three = (others[i].point for i in context.rng.choice(len(others), 3, replace=False))
        if self.strategy == "rand/1":
            base, pairs = one, [(two, three)]
        else:
            leader = max(best.values(), key=lambda individual: (individual.gain, -individual.rank))
            base, pairs = target.point, [(leader.point, target.point), (one, two)]
        mutant = base + self.factor * sum(plus - minus for plus, minus in pairs)
        outside = (mutant < 0.0) | (mutant > 1.0)
        mutant = np.where(outside, (np.clip(mutant, 0.0, 1.0) + target.point) / 2.0, mutant)
        for axis in np.flatnonzero(cube.unordered):
            mutant[axis] = base[axis]
            for plus, minus in pairs:
                if plus[axis] != minus[axis] and context.rng.random() < self.factor:
                    mutant[axis] = plus[axis]
        crossed = context.rng.random(len(cube)) < self.crossover
        crossed[context.rng.integers(len(cube))] = True  # at least one coordinate of the mutant
        return np.where(crossed, mutant, target.point)


def _population(history: PopulationHistory, size: int) -> dict[int, Individual]:
    """The best evaluated individual of each member; the later of equals, so that plateaus are left."""
    best: dict[int, Individual] = {}
    for individual in history.evaluated:
        member = individual.rank % size
        if member not in best or individual.gain >= best[member].gain:
            best[member] = individual
    return best


ALGORITHM = Algorithm(
    make=DifferenceSampler,
    when="hundreds of trials in a rugged space, where parameters depend on each other",
    cost="0.005 s",
    parallel="each worker evaluates the trial vector of another member; no worker waits for a generation",
    source="Storn and Price 1997, J. Global Optimization 11; Price et al. 2005",
    options={
        "population": "members, at least 4 (default: a fifth of the budget, at most 14, at least the workers)",
        "strategy": f"{STRATEGIES[0]} (default) or {STRATEGIES[1]}, with binomial crossover",
        "factor": f"F, the factor on differences (default {FACTOR})",
        "crossover": f"CR, the probability that a coordinate is the mutant's (default {CROSSOVER})",
    },
)

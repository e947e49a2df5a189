"""PSO, particle swarm optimization with constriction.

    v <- chi (v + U(0, own) (own best - x) + U(0, swarm) (swarm best - x)),   x <- x + v
The velocity v is the difference of a particle's last two positions, so that the storage alone determines it.
Source: Kennedy and Eberhart 1995; constriction chi: Clerc and Kennedy 2002, IEEE TEVC 6(1), type 1". Categories have no
direction: each is kept, or taken from either best with weights equal to the accelerations, or sometimes redrawn.
"""

from __future__ import annotations

import math

import numpy as np

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.options import float_option
from hpotune.search.base.population import PopulationHistory, PopulationSampler, reflected
from hpotune.search.base.sampler import SamplerSetup, SamplingContext
from hpotune.search.base.unit_cube import Cube

ACCELERATION = 2.05
"""Acceleration towards each best. The sum must exceed 4 for the swarm to contract (Clerc and Kennedy, 4.1)."""
REDRAW_PROBABILITY = 0.05
"""Probability that a category is redrawn: otherwise one that neither best has would never return."""


class SwarmSampler(PopulationSampler):
    """A particle swarm with constriction."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        self.own = float_option(self.setup.options, "own", ACCELERATION, low=0.0, high=10.0)
        self.swarm = float_option(self.setup.options, "swarm", ACCELERATION, low=0.0, high=10.0)
        pull = self.own + self.swarm
        if pull <= 4.0:
            raise ValueError(f"own + swarm is {pull:g} and must exceed 4, or the swarm does not contract")
        self.inertia = 2.0 / (pull - 2.0 + math.sqrt(pull * (pull - 4.0)))

    def next_position(
        self, cube: Cube, history: PopulationHistory, context: SamplingContext
    ) -> np.ndarray | None:
        """The next position of the particle; None while it has none. Shape (d,)."""
        mine = history.previous(context.rank, size=self.size)
        if not mine:
            return None
        here = mine[-1].point
        # the first velocity is half the way to a random point, as in the standard PSO of 2007
        before = (
            mine[-2].point
            if len(mine) > 1
            else (3.0 * here - self.member_rng(context).random(len(cube))) / 2.0
        )
        evaluated = [one for one in mine if np.isfinite(one.gain)]
        own = max(evaluated, key=lambda one: one.gain).point if evaluated else here
        swarm = history.best.point if history.best is not None else own
        rng = context.rng
        to_own, to_swarm = self.own * rng.random(len(cube)), self.swarm * rng.random(len(cube))
        # chi multiplies the velocity and both attractions
        pulled = self.inertia * (here - before + to_own * (own - here) + to_swarm * (swarm - here))
        point = reflected(here + pulled)
        for axis in np.flatnonzero(cube.unordered):
            weights = np.array([1.0, to_own[axis], to_swarm[axis]])
            weights = np.append(weights / weights.sum() * (1.0 - REDRAW_PROBABILITY), REDRAW_PROBABILITY)
            point[axis] = rng.choice([here[axis], own[axis], swarm[axis], rng.random()], p=weights)
        return point


ALGORITHM = Algorithm(
    make=SwarmSampler,
    when="many cheap trials on many workers, in spaces that are mostly numbers",
    cost="0.005 s",
    parallel="each worker moves another particle; no worker waits for a generation",
    source="Kennedy and Eberhart 1995; Clerc and Kennedy 2002, IEEE TEVC 6(1)",
    options={
        "population": "particles (default: a fifth of the budget, at most 14, at least the workers)",
        "own": f"acceleration towards a particle's own best (default {ACCELERATION})",
        "swarm": f"acceleration towards the swarm's best (default {ACCELERATION}); both together more than 4",
    },
)

"""Particle swarm: each member flies on, drawn to its own best point and to the swarm's.

A member's velocity is the way between its last two points, so that the store alone tells it.
Source: Kennedy and Eberhart 1995; constriction: Clerc and Kennedy 2002, IEEE TEVC 6(1), type 1". Categories have no
direction: each is kept or taken from either best with the weights that its pulls have there, at times drawn anew.
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
"""Towards each best. Their sum must exceed 4 for the swarm to contract (Clerc and Kennedy, 4.1)."""
REDRAW_PROBABILITY = 0.05
"""Chance of a category drawn anew: no pull leads to one that neither best has."""


class SwarmSampler(PopulationSampler):
    """The swarm with constriction."""

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
        """Where the member flies to."""
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
        told = [one for one in mine if np.isfinite(one.gain)]
        own = max(told, key=lambda one: one.gain).point if told else here
        swarm = history.best.point if history.best is not None else own
        rng = context.rng
        to_own, to_swarm = self.own * rng.random(len(cube)), self.swarm * rng.random(len(cube))
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
    parallel="each worker moves a member of its own; nobody waits for a generation",
    source="Kennedy and Eberhart 1995; Clerc and Kennedy 2002, IEEE TEVC 6(1)",
    options={
        "population": "members (default: a fifth of the budget, at most 14, at least the workers)",
        "own": f"pull to a member's own best (default {ACCELERATION})",
        "swarm": f"pull to the swarm's best (default {ACCELERATION}); both together more than 4",
    },
)

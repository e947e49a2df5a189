"""Random points: the yardstick of every other algorithm (Bergstra and Bengio 2012)."""

from __future__ import annotations

import numpy as np

from hpotune.search.algorithm import Algorithm
from hpotune.search.cube import Cube
from hpotune.search.history import History
from hpotune.search.sampler import CubeSampler, Turn


class RandomSampler(CubeSampler):
    """Independent uniform points of the cube."""

    several = True

    def place(self, cube: Cube, history: History, turn: Turn) -> np.ndarray:
        """A uniform point."""
        return turn.rng.random(len(cube))


ALGORITHM = Algorithm(
    make=RandomSampler,
    when="a yardstick, or a first look at a space nobody knows",
    cost="nothing",
    parallel="any number of workers",
    source="Bergstra and Bengio 2012, JMLR 13",
    conditions=True,
    objectives=True,
)

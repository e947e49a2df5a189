"""Each position of a list once: the algorithm of the studies that hpotune derives from another one.

The one parameter is a position. That of a failed trial is not proposed again (schedule/listed_trials.py).
"""

from __future__ import annotations

import numpy as np

from hpotune.config.schema.search_config import LISTED
from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.history import History
from hpotune.search.base.sampler import CubeSampler, SamplingContext
from hpotune.search.base.unit_cube import Cube

TOLERANCE = 1e-9
"""Stored numbers may differ in their last digits."""


class ListedSampler(CubeSampler):
    """Proposes the first position that no trial has."""

    multi_objective = True

    def propose(self, cube: Cube, history: History, context: SamplingContext) -> np.ndarray:
        """The first free position after skipping `salt` of them. Shape (1,).

        Raises: ValueError where none is free.
        """
        (axis,) = cube.axes
        units = [axis.unit(axis.nth(position)) for position in range(self.setup.trials)]
        free = [
            unit for unit in units if not any(abs(unit - x) < TOLERANCE for x in history.known_points[:, 0])
        ]
        if not free:
            raise ValueError("each trial of the list has been started already")
        return np.array([free[self.setup.salt % len(free)]])


ALGORITHM = Algorithm(
    make=ListedSampler,
    when=f"{LISTED}: written by hpotune alone, for the sealed test",
    cost="nothing",
    parallel="any number of workers",
    source="a list of points",
    objectives=True,
)

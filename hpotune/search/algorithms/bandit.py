"""Bandit algorithms by name: how points are proposed. Which trials are promoted, schedule/promotion.py decides.

`algorithm: asha` is `algorithm: random` with `pruner: asha`; any algorithm takes any pruner.
"""

from __future__ import annotations

from hpotune.search.algorithms import random, tpe
from hpotune.search.algorithms.algorithm import Algorithm

_PARALLEL = "any number of workers: no worker waits for a rung to fill"

ALGORITHMS = {
    "asha": Algorithm(
        make=random.RandomSampler,
        when="many short trials: random points; the best third of each rung is promoted",
        cost="nothing",
        parallel=_PARALLEL,
        source="Li et al. 2020, MLSys (asynchronous successive halving)",
        conditions=True,
        objectives=True,
    ),
    "hyperband": Algorithm(
        make=random.RandomSampler,
        when="as asha, where it is unknown how early trials can be compared",
        cost="nothing",
        parallel=_PARALLEL,
        source="Li et al. 2018, JMLR 18; asynchronous brackets as in Li et al. 2020",
        conditions=True,
        objectives=True,
    ),
    "bohb": Algorithm(
        make=tpe.ALGORITHM.make,
        when="as hyperband, with points from a model of the highest rung that enough trials have reached",
        cost=tpe.ALGORITHM.cost,
        parallel=f"{_PARALLEL}; {tpe.ALGORITHM.parallel}",
        source="Falkner, Klein and Hutter 2018, ICML; its model: Optuna's TPE",
        conditions=True,
        objectives=True,
        options=tpe.ALGORITHM.options,
    ),
}

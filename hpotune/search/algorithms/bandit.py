"""The bandits by name: how points are drawn; schedule/promotion.py decides which of them go on.

`algorithm: asha` is `algorithm: random` with `pruner: asha`; any algorithm takes any pruner.
"""

from __future__ import annotations

from hpotune.search.algorithms import random, tpe
from hpotune.search.algorithms.algorithm import Algorithm

_PARALLEL = "any number of workers: nobody waits for a rung to fill"

ALGORITHMS = {
    "asha": Algorithm(
        make=random.RandomSampler,
        when="many cheap beginnings: random points, the best third of each rung goes on",
        cost="nothing",
        parallel=_PARALLEL,
        source="Li et al. 2020, MLSys (asynchronous successive halving)",
        conditions=True,
        objectives=True,
    ),
    "hyperband": Algorithm(
        make=random.RandomSampler,
        when="as asha, where nobody knows how early a trial can be judged",
        cost="nothing",
        parallel=_PARALLEL,
        source="Li et al. 2018, JMLR 18; asynchronous brackets as in Li et al. 2020",
        conditions=True,
        objectives=True,
    ),
    "bohb": Algorithm(
        make=tpe.ALGORITHM.make,
        when="as hyperband, its points drawn by a model of the highest rung that enough trials have reached",
        cost=tpe.ALGORITHM.cost,
        parallel=f"{_PARALLEL}; {tpe.ALGORITHM.parallel}",
        source="Falkner, Klein and Hutter 2018, ICML; its model: Optuna's TPE",
        conditions=True,
        objectives=True,
        options=tpe.ALGORITHM.options,
    ),
}

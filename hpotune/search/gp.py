"""A Gaussian process: Optuna's GPSampler."""

from __future__ import annotations

from optuna.samplers import BaseSampler, GPSampler

from hpotune.search.algorithm import Algorithm
from hpotune.search.optuna_own import options_of
from hpotune.search.sampler import Setup


def _make(setup: Setup) -> BaseSampler:
    return GPSampler(seed=setup.trial_seed, **setup.options)


ALGORITHM = Algorithm(
    make=_make,
    when="few trials in a space of numbers",
    cost="1 s",
    parallel="pending trials are believed at a lie",
    source="Optuna 5",
    conditions=True,
    objectives=True,
    options=options_of(GPSampler, ours={"independent_sampler", "constraints_func"}),
)

"""Covariance matrix adaptation: Optuna's CmaEsSampler."""

from __future__ import annotations

from optuna.samplers import BaseSampler, CmaEsSampler

from hpotune.search.algorithm import Algorithm
from hpotune.search.optuna_own import options_of
from hpotune.search.sampler import Setup


def _make(setup: Setup) -> BaseSampler:
    return CmaEsSampler(seed=setup.trial_seed, warn_independent_sampling=False, **setup.options)


ALGORITHM = Algorithm(
    make=_make,
    when="smooth spaces of numbers only, with hundreds of trials",
    cost="0.001 s",
    parallel="workers draw from one generation; later ones learn from it",
    source="Hansen 2016, arXiv 1604.00772; Optuna 5 (package cmaes)",
    categories=False,
    constraints=False,
    options=options_of(CmaEsSampler, ours={"warn_independent_sampling", "independent_sampler"}),
)

"""CMA-ES, covariance matrix adaptation evolution strategy: Optuna's CmaEsSampler.

It writes the state of its distribution to attributes in the storage, so any worker continues it.
"""

from __future__ import annotations

import warnings
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.options import bool_option, int_option
from hpotune.search.base.sampler import SamplerSetup

_SWITCHES = ("with_margin", "use_separable_cma", "lr_adapt", "consider_pruned_trials")


def _make(setup: SamplerSetup) -> BaseSampler:
    options = setup.options
    more: dict[str, Any] = {name: bool_option(options, name, default=False) for name in _SWITCHES}
    size = int_option(options, "popsize", 4, low=4) if "popsize" in options else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return CmaEsSampler(
            seed=setup.trial_seed,
            warn_independent_sampling=False,
            n_startup_trials=int_option(options, "n_startup_trials", 1, low=0),
            popsize=size,
            **more,
        )


ALGORITHM = Algorithm(
    make=_make,
    when="smooth spaces of numbers only, with hundreds of trials",
    cost="0.001 s",
    parallel="workers draw from one generation; later ones learn from it",
    source="Hansen 2016, arXiv 1604.00772; Optuna 5 (package cmaes)",
    categories=False,
    constraints=False,
    options={
        "popsize": "trials of a generation (default 4 + 3 ln of the number of parameters)",
        "n_startup_trials": "random trials before the first generation (default 1)",
        "with_margin": "keeps a minimum probability that whole numbers change (Hamano et al. 2022; default false)",
        "use_separable_cma": "no covariances, for many parameters (Ros and Hansen 2008; default false)",
        "lr_adapt": "the learning rate adapts to noise (Nomura et al. 2023; default false)",
        "consider_pruned_trials": "pruned trials count with their last value (default false)",
    },
)

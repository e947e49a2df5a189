"""TPE, tree-structured Parzen estimator: Optuna's TPESampler, multivariate, with pending trials counted as bad.

Constraint values that are stored with trials are used: a trial that violates one counts as bad.
"""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, TPESampler

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.options import int_option
from hpotune.search.base.sampler import SamplerSetup


def _make(setup: SamplerSetup) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of `group`
        return TPESampler(
            seed=setup.trial_seed,
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=int_option(setup.options, "n_startup_trials", 10, low=0),
            n_ei_candidates=int_option(setup.options, "n_ei_candidates", 24, low=1),
        )


ALGORITHM = Algorithm(
    make=_make,
    when="conditional spaces, several objectives, or hundreds of trials",
    cost="0.01 s",
    parallel="pending trials count as bad (constant liar), so that workers choose different points",
    source="Bergstra et al. 2011, NeurIPS; Watanabe 2023, arXiv 2304.11127; Optuna 5",
    conditions=True,
    objectives=True,
    options={
        "n_startup_trials": "random trials before the first model (default 10)",
        "n_ei_candidates": "candidates sampled from the model, of which the best is taken (default 24)",
    },
)

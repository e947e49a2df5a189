"""Tree-structured Parzen estimator: Optuna's TPESampler, all parameters at once, pending trials counted as bad."""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, TPESampler

from hpotune.search.algorithm import Algorithm
from hpotune.search.optuna_own import options_of
from hpotune.search.sampler import Setup


def _make(setup: Setup) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of `group`
        return TPESampler(
            seed=setup.trial_seed, multivariate=True, group=True, constant_liar=True, **setup.options
        )


ALGORITHM = Algorithm(
    make=_make,
    when="conditional spaces, several objectives, or hundreds of trials",
    cost="0.01 s",
    parallel="pending trials are counted as bad, so that workers spread",
    source="Bergstra et al. 2011, NeurIPS; Watanabe 2023, arXiv 2304.11127; Optuna 5",
    conditions=True,
    objectives=True,
    options=options_of(TPESampler, ours={"multivariate", "group", "constant_liar", "constraints_func"}),
)

"""NSGA-II and NSGA-III, genetic algorithms for several objectives: Optuna's NSGAIISampler and NSGAIIISampler.

They write each trial's generation, and each generation's parents, to attributes in the storage, so any worker continues
them. Constraint values that are stored with trials are used too.
"""

from __future__ import annotations

import warnings
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler
from optuna.samplers.nsgaii import (
    BaseCrossover,
    BLXAlphaCrossover,
    PolynomialMutation,
    SBXCrossover,
    SPXCrossover,
    UNDXCrossover,
    UniformCrossover,
    VSBXCrossover,
)

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.options import choice_option, float_option, int_option
from hpotune.search.base.sampler import SamplerSetup

CROSSOVERS: dict[str, type[BaseCrossover]] = {
    "uniform": UniformCrossover,
    "blx-alpha": BLXAlphaCrossover,
    "sbx": SBXCrossover,
    "vsbx": VSBXCrossover,
    "spx": SPXCrossover,
    "undx": UNDXCrossover,
}
MUTATIONS = ("anew", "polynomial")


def population(setup: SamplerSetup) -> int:
    """Default population: a tenth of the budget, 10 to 50, at least the workers. Optuna's 50 leaves few generations."""
    return max(10, setup.workers, min(50, setup.trials // 10))


def _second(setup: SamplerSetup) -> BaseSampler:
    return NSGAIISampler(seed=setup.trial_seed, **_arguments(setup))


def _third(setup: SamplerSetup) -> BaseSampler:
    options = setup.options
    points = options.get("reference_points")
    if points is not None:
        import numpy as np

        points = np.array(points, dtype=float)
        if points.ndim != 2:
            raise ValueError("reference_points must be rows of numbers, one for each objective")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return NSGAIIISampler(
            seed=setup.trial_seed,
            reference_points=points,
            dividing_parameter=int_option(options, "dividing_parameter", 3, low=1),
            **_arguments(setup),
        )


def _arguments(setup: SamplerSetup) -> dict[str, Any]:
    """Arguments of both samplers."""
    options = setup.options
    crossover = CROSSOVERS[choice_option(options, "crossover", "uniform", allowed=CROSSOVERS)]
    mutation = choice_option(options, "mutation", MUTATIONS[0], allowed=MUTATIONS)
    chance = options.get("mutation_prob")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return {
            "population_size": int_option(options, "population_size", population(setup), low=2),
            "crossover": crossover(),
            "crossover_prob": float_option(options, "crossover_prob", 0.9, low=0.0, high=1.0),
            "swapping_prob": float_option(options, "swapping_prob", 0.5, low=0.0, high=1.0),
            "mutation": PolynomialMutation() if mutation == "polynomial" else None,
            "mutation_prob": chance
            if chance is None
            else float_option(options, "mutation_prob", 0, low=0.0, high=1.0),
        }


_OPTIONS = {
    "population_size": "trials per generation (default: a tenth of the budget, from 10 to 50, at least the workers)",
    "crossover": f"{', '.join(CROSSOVERS)} (default uniform)",
    "crossover_prob": "probability of crossover (default 0.9)",
    "swapping_prob": "probability that a category comes from the second parent (default 0.5)",
    "mutation": f"{' or '.join(MUTATIONS)} (default {MUTATIONS[0]}: a random value)",
    "mutation_prob": "probability that a parameter is mutated (default: one over their number)",
}

ALGORITHMS = {
    "nsga2": Algorithm(
        make=_second,
        when="two or three objectives with hundreds of trials",
        cost="0.002 s",
        parallel="workers sample the same generation; the next starts when enough of its trials have finished",
        source="Deb et al. 2002, IEEE TEVC 6(2); Optuna 5",
        conditions=True,
        objectives=True,
        options=_OPTIONS,
    ),
    "nsga3": Algorithm(
        make=_third,
        when="four objectives or more with hundreds of trials",
        cost="0.002 s",
        parallel="workers sample the same generation; the next starts when enough of its trials have finished",
        source="Deb and Jain 2014, IEEE TEVC 18(4); Optuna 5",
        conditions=True,
        objectives=True,
        options={
            **_OPTIONS,
            "reference_points": "directions in the space of objectives, one per row (default: evenly spread)",
            "dividing_parameter": "how finely the default directions divide each objective (default 3)",
        },
    ),
}

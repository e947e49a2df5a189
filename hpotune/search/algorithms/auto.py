"""The default: starting points, a few Sobol points, then a Gaussian process that knows how fine-tuning fails.

What a plain process lacks, and why it is here (measured on six surfaces, most of them of real fine-tuning runs):
scores whose lower tail is drawn in, since one collapsed run otherwise rules the model; hyperparameters averaged, not
maximised, since ten points do not settle them; a belief around the recommended setting that fades as 1 / n; expected
improvement over the best mean, not over the luckiest score; running trials believed at their mean, so that workers
spread; and the chance that a point gives no score at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from optuna.samplers import BaseSampler

from hpotune.search.algorithms import tpe
from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.history import History
from hpotune.search.base.sampler import CubeSampler, SamplerSetup, SamplingContext, trial_seed
from hpotune.search.base.unit_cube import Cube
from hpotune.search.gp.acquisition import (
    log_expected_improvement,
    log_prior,
    maximize_acquisition,
    prior_quantiles,
)
from hpotune.search.gp.failure_model import compressed_scores, log_success_probability
from hpotune.search.gp.gaussian_process import (
    LOG_LENGTHSCALE_STARTS,
    GaussianProcess,
    fit,
    sample_hyperparameters,
)

STARTUP_TRIALS = 4
"""Trials before the model is asked, starting points counted: of 4 and 6, 4 was quicker (16 trials to the target for 25,
12 seeds); the model's belief and its averaging carry the trials after."""
MIN_SOBOL_TRIALS = 3
"""Even points, however many starting points there are, as many as without any: a portfolio says nothing of the rest.
Where it misleads, with 2 of them the regret after 50 trials was .43, with 3 .33; where it helps, equal (20 seeds)."""
MIN_SCORES = 3
"""Scores that a model needs; with fewer, even points go on."""
HYPERPARAMETER_SAMPLES = ((100, 8), (200, 4))
"""Most points known or running -> hyperparameters averaged over; beyond the last, the most probable ones alone, since
many points settle them. 8 for 1: regret after 20 trials .158 for .194 (12 seeds)."""
THINNING = 4
"""Steps of the sampler between two that are used."""
PRIOR_WEIGHT = 1.0
"""Weight of the belief's logarithm, divided by the trials before; 10 did not survive a wrong belief, 1 does."""
NEAR_BEST = 5
"""Best points around which candidates lie."""
NOISE_RATIO_BOUNDS = (0.01, 100.0)
"""Ends of a score's noise variance as a multiple of the usual one."""
TPE_FROM = 400
"""Trials from which the tree-structured estimator takes over: the process costs their number cubed, and so many trials
are beyond what it was measured on."""


@dataclass(frozen=True, kw_only=True)
class FittedModels:
    """What one set of finished trials teaches."""

    points: np.ndarray
    """Their points, the very array."""
    models: list[GaussianProcess]
    means: list[np.ndarray]
    """Of each model at those points."""
    log_success: Callable[[np.ndarray], np.ndarray] | None
    """Logarithm of the probability of a score; None: nothing broke."""


class AutoSampler(CubeSampler):
    """Gaussian process with averaged hyperparameters; one objective, no conditions."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        self._cached: FittedModels | None = None

    def propose(self, cube: Cube, history: History, context: SamplingContext) -> np.ndarray:
        """An even point at first, then where the improvement to be expected is largest."""
        if (
            context.rank < max(STARTUP_TRIALS, len(self.setup.start_points) + MIN_SOBOL_TRIALS)
            or len(history) < MIN_SCORES
        ):
            return self._sobol_point(cube, context)
        known = self._fitted_models(cube, history)
        models = [model.with_pending(history.pending) for model in known.models]
        # what runs counts as reached: else its neighbours promise the same again, and the workers crowd
        drawn_yet = np.vstack([history.points, history.pending])
        bests = [float(model.predict(drawn_yet)[0].max()) for model in models]

        def value(points: np.ndarray) -> np.ndarray:
            each = [
                log_expected_improvement(*m.predict(points), best)
                for m, best in zip(models, bests, strict=True)
            ]
            found: np.ndarray = reduce(np.logaddexp, each)
            found = found + PRIOR_WEIGHT / context.rank * log_prior(cube, points)
            return found if known.log_success is None else found + known.log_success(points)

        order = np.argsort(-np.mean(known.means, axis=0), kind="stable")
        return maximize_acquisition(
            cube,
            value,
            rng=context.rng,
            best=history.points[order[:NEAR_BEST]],
            excluded=history.known_points,
        )

    def _sobol_point(self, cube: Cube, context: SamplingContext) -> np.ndarray:
        """Point `context.rank` of a scrambled Sobol sequence, spread as the belief is; from FIRST on every second one.

        Half of them even from the start: regret after 20 trials .19 for .135, and no gain where the belief is wrong.
        """
        from scipy.stats.qmc import Sobol  # type: ignore[import-untyped]  # 0.3 s to import

        engine = Sobol(d=len(cube), scramble=True, rng=trial_seed(self.setup.seed, 0, salt=self.setup.salt))
        if context.rank:  # scipy cannot skip zero points of a scrambled sequence
            engine.fast_forward(context.rank)
        even = engine.random(1)
        found: np.ndarray = cube.snap(
            prior_quantiles(cube, even) if context.rank < STARTUP_TRIALS or context.rank % 2 else even
        )[0]
        return found

    def _fitted_models(self, cube: Cube, history: History) -> FittedModels:
        """Kept between the calls of one ask, which differ in what runs, never in what has finished."""
        if self._cached is None or self._cached.points is not history.points:
            models = self._models(cube, history)
            self._cached = FittedModels(
                points=history.points,
                models=models,
                means=[model.predict(history.points)[0] for model in models],
                log_success=log_success_probability(history.points, history.failed, cube.unordered),
            )
        return self._cached

    def _models(self, cube: Cube, history: History) -> list[GaussianProcess]:
        """Processes over finished points; those that broke have the worst score seen: nobody looks there again."""
        scores, broken = compressed_scores(history.gains), len(history.failed)
        known = len(history) + broken + len(history.pending)
        count = next((count for most, count in HYPERPARAMETER_SAMPLES if known <= most), 0)
        best = fit(
            np.vstack([history.points, history.failed]),
            np.append(scores, np.full(broken, scores.min())),
            np.append(noise_ratios(history), np.ones(broken)),
            cube.unordered,
            log_lengthscales=LOG_LENGTHSCALE_STARTS[:1]
            if count
            else LOG_LENGTHSCALE_STARTS,  # where the draws begin matters little
        )
        rng = np.random.default_rng(trial_seed(self.setup.seed, len(history)))
        return sample_hyperparameters(best, count=count, every=THINNING, rng=rng) or [best]


def noise_ratios(history: History) -> np.ndarray:
    """Noise variances as multiples of the usual one, by the scores' standard errors. Shape (n,).

    Their sizes to each other count, the level is fitted: the error of a mean over items is shared by all trials that
    are scored on the same items (HellaSwag says .005, exact repeats of the data differ by .0003).
    """
    known = np.isfinite(history.stderrs) & (history.stderrs > 0)
    found = np.ones(len(history))
    if known.any():
        found[known] = np.clip(
            (history.stderrs[known] / np.median(history.stderrs[known])) ** 2, *NOISE_RATIO_BOUNDS
        )
    return found


def _make(setup: SamplerSetup) -> BaseSampler:
    if setup.conditional or setup.objectives > 1 or setup.number >= TPE_FROM:
        return tpe.ALGORITHM.make(replace(setup, options={}))
    return AutoSampler(setup)


ALGORITHM = Algorithm(
    make=_make,
    when="always, unless you know better",
    cost="0.05 s at 50 trials, 0.1 s at 200",
    parallel="running trials are believed at their mean: any number of workers, each with a point of its own",
    source="Gaussian process: Rasmussen and Williams 2006; belief: Hvarfner et al. 2022; above 400 trials, with "
    "conditions or several objectives: tpe",
    conditions=True,
    objectives=True,
)

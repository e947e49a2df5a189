"""The default search: start points, a few Sobol points, then Bayesian optimization adapted to fine-tuning.

What it adds to a plain Gaussian process (`gp`), and why (measured on six surfaces, most from real fine-tuning runs):
- scores with a compressed lower tail: otherwise one collapsed run dominates the model;
- hyperparameters averaged over their posterior, not maximized: ten points do not determine them;
- a prior around the recommended setting whose weight falls as 1 / n (piBO, Hvarfner et al. 2022);
- expected improvement over the best posterior mean, not over the largest noisy score;
- running trials as pending points at their posterior mean, so that workers choose different points;
- the probability that a point gives a score at all.
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
"""Trials before the model is used, with start points. 4 was faster than 6 (16 trials to the target instead of 25, 12
seeds): the prior and the averaged hyperparameters are enough for the trials after."""
MIN_SOBOL_TRIALS = 3
"""Sobol points at least, whatever the number of start points: a portfolio says nothing about the rest of the space.

Where the portfolio misleads, the regret after 50 trials was 0.43 with 2, 0.33 with 3; else equal (20 seeds)."""
MIN_SCORES = 3
"""Scores that a model needs; with fewer, Sobol points continue."""
HYPERPARAMETER_SAMPLES = ((100, 8), (200, 4))
"""(points up to, hyperparameter samples): beyond the last, the most probable hyperparameters alone, which many points
determine. 8 samples instead of 1: regret after 20 trials 0.158 instead of 0.194 (12 seeds)."""
THINNING = 4
"""Steps of the Markov chain per sample."""
PRIOR_WEIGHT = 1.0
"""Weight of the log prior, divided by the number of trials; 10 failed with a wrong prior, 1 recovers from it."""
NEAR_BEST = 5
"""Best points around which candidates are drawn."""
NOISE_RATIO_BOUNDS = (0.01, 100.0)
"""Bounds of the noise ratios."""
TPE_FROM = 400
"""Trial number from which TPE is used: the process costs the number of trials cubed; more were not measured."""


@dataclass(frozen=True, kw_only=True)
class FittedModels:
    """The models fitted to one set of finished trials."""

    points: np.ndarray
    """Points of the trials: the array that they were fitted to, shape (n, d)."""
    models: list[GaussianProcess]
    means: list[np.ndarray]
    """Posterior mean of each model at those points. Shapes (n,)."""
    log_success: Callable[[np.ndarray], np.ndarray] | None
    """Logarithm of the probability of a score, (m, d) -> (m,); None: no trial failed."""


class AutoSampler(CubeSampler):
    """Bayesian optimization for one objective and unconditional parameters."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        self._cached: FittedModels | None = None

    def propose(self, cube: Cube, history: History, context: SamplingContext) -> np.ndarray:
        """A Sobol point at first, then the maximum of the acquisition function. Shape (d,)."""
        if (
            context.rank < max(STARTUP_TRIALS, len(self.setup.start_points) + MIN_SOBOL_TRIALS)
            or len(history) < MIN_SCORES
        ):
            return self._sobol_point(cube, context)
        known = self._fitted_models(cube, history)
        models = [model.with_pending(history.pending) for model in known.models]
        # pending points count in the best value: otherwise their neighbours promise the same improvement again
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
        """Point `context.rank` of a scrambled Sobol sequence. Shape (d,).

        The first STARTUP_TRIALS, and after them those of odd rank, are mapped to the quantiles of the prior. With half
        of them uniform from the start: regret after 20 trials 0.19 instead of 0.135, no gain where the prior is wrong.
        """
        from scipy.stats.qmc import Sobol  # type: ignore[import-untyped]  # 0.3 s to import

        engine = Sobol(d=len(cube), scramble=True, rng=trial_seed(self.setup.seed, 0, salt=self.setup.salt))
        if context.rank:  # scipy cannot skip zero points of a scrambled sequence
            engine.fast_forward(context.rank)
        uniform = engine.random(1)
        found: np.ndarray = cube.snap(
            prior_quantiles(cube, uniform) if context.rank < STARTUP_TRIALS or context.rank % 2 else uniform
        )[0]
        return found

    def _fitted_models(self, cube: Cube, history: History) -> FittedModels:
        """The models, cached between the calls of one ask: they differ in pending points, not in finished trials."""
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
        """Gaussian processes over finished points; failed points get the worst score, so that they are avoided."""
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
            else LOG_LENGTHSCALE_STARTS,  # the start of the Markov chain matters little
        )
        rng = np.random.default_rng(trial_seed(self.setup.seed, len(history)))
        return sample_hyperparameters(best, count=count, every=THINNING, rng=rng) or [best]


def noise_ratios(history: History) -> np.ndarray:
    """Noise variances of the scores relative to their median, by the standard errors; 1 where unknown. Shape (n,).

    Only the ratios are used, the level is fitted: much of the standard error of a mean over items is common to all
    trials that are scored on the same items (HellaSwag reports 0.005, exact repetitions differ by 0.0003).
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
    parallel="running trials count as pending at their posterior mean: any number of workers, different points",
    source="Gaussian process: Rasmussen and Williams 2006; prior: Hvarfner et al. 2022; above 400 trials, with "
    "conditions or several objectives: tpe",
    conditions=True,
    objectives=True,
)

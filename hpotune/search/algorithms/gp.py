"""Textbook Bayesian optimization: a Latin hypercube, then a Gaussian process with expected improvement.

It has nothing that `auto` adds: scores are standardized only, hyperparameters are the most probable ones, there is no
prior of the optimum. Source: Jones, Schonlau and Welch 1998; batches: Ginsbourger et al. 2010.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.history import History
from hpotune.search.base.options import choice_option, int_option
from hpotune.search.base.sampler import CubeSampler, SamplerSetup, SamplingContext, trial_seed
from hpotune.search.base.unit_cube import Cube
from hpotune.search.gp.acquisition import log_expected_improvement, maximize_acquisition
from hpotune.search.gp.failure_model import compressed_scores, log_success_probability
from hpotune.search.gp.gaussian_process import GaussianProcess, fit

STARTUP_TRIALS = 10
"""Rows of the Latin hypercube: a fifth of a budget of 50."""
MIN_SCORES = 2
"""Scores that a model needs."""
NEAR_BEST = 5
"""Best points around which candidates are drawn."""


class GpSampler(CubeSampler):
    """Latin hypercube, Matern 5/2 kernel, expected improvement over the best score."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        options = self.setup.options
        self.startup = int_option(options, "n_startup", STARTUP_TRIALS, low=1)
        self.transform = choice_option(options, "transform", "standard", allowed=("standard", "winsor"))
        self.batch = choice_option(options, "batch", "believer", allowed=("believer", "liar"))
        self._cached: tuple[np.ndarray, GaussianProcess] | None = None

    def propose(self, cube: Cube, history: History, context: SamplingContext) -> np.ndarray:
        """A row of the Latin hypercube, then the maximum of the expected improvement. Shape (d,)."""
        if context.rank < self.startup or len(history) < MIN_SCORES:
            return self._row(cube, context)
        model = self._model(cube, history)
        best = float(model.scores.max())
        order = np.argsort(-model.scores, kind="stable")
        model = self._with_pending_scores(model, history.pending)
        if len(model.pending):  # otherwise neighbours promise the same again
            best = max(best, float(model.predict(model.pending)[0].max()))
        log_success = log_success_probability(history.points, history.failed, cube.unordered)

        def value(points: np.ndarray) -> np.ndarray:
            found = log_expected_improvement(*model.predict(points), best)
            return found if log_success is None else found + log_success(points)

        return maximize_acquisition(
            cube,
            value,
            rng=context.rng,
            best=history.points[order[:NEAR_BEST]],
            excluded=history.known_points,
        )

    def _row(self, cube: Cube, context: SamplingContext) -> np.ndarray:
        from scipy.stats.qmc import LatinHypercube  # type: ignore[import-untyped]  # 0.3 s to import

        design, row = divmod(context.rank, self.startup)  # many workers at once need a second hypercube
        engine = LatinHypercube(d=len(cube), rng=trial_seed(self.setup.seed, design, salt=self.setup.salt))
        found: np.ndarray = cube.snap(engine.random(self.startup))[row]
        return found

    def _model(self, cube: Cube, history: History) -> GaussianProcess:
        """The model, cached between the calls of one ask: they differ in pending points, not in finished trials."""
        if self._cached is None or self._cached[0] is not history.points:
            gains = history.gains
            scores = (gains - gains.mean()) / (gains.std() or 1.0)
            if self.transform == "winsor":
                scores = compressed_scores(gains)
            self._cached = (history.points, fit(history.points, scores, np.ones(len(gains)), cube.unordered))
        return self._cached[1]

    def _with_pending_scores(self, model: GaussianProcess, pending: np.ndarray) -> GaussianProcess:
        """Pending points at their posterior mean, or at the worst score (constant liar), which separates them more."""
        if self.batch == "believer":
            return model.with_pending(pending)
        return replace(
            model,
            points=np.vstack([model.points, pending]),
            scores=np.append(model.scores, np.full(len(pending), model.scores.min())),
            noise_ratios=np.append(model.noise_ratios, np.ones(len(pending))),
        )


ALGORITHM = Algorithm(
    make=GpSampler,
    when="a smooth function of numbers, few trials, no prior knowledge; to compare with the literature",
    cost="0.05 s at 50 trials, 0.1 s at 200",
    parallel="running trials count as pending at their posterior mean, or at the worst score (option batch)",
    source="Jones, Schonlau and Welch 1998; Ginsbourger et al. 2010",
    options={
        "n_startup": f"rows of the Latin hypercube before the first model (default {STARTUP_TRIALS})",
        "transform": "standard (default): scores of mean 0 and variance 1; winsor: the lower tail is compressed first",
        "batch": "believer (default) or liar: the score assumed for running trials, posterior mean or worst score",
    },
)

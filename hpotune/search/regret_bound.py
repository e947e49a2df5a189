"""A probabilistic bound on the simple regret, and the expected gain of the next trials. Pure: reads, writes nothing.

A Gaussian process is fitted to the finished trials, and functions are drawn from its posterior jointly at many points.
In each draw, the regret of stopping now is the maximum over all points minus the value at the best finished point; its
95 % quantile over the draws is the bound. Source: Wilson 2024, arXiv 2402.16811 (stopping by a probabilistic bound on
the simple regret). The bounds of Makarova et al. 2022, which Optuna's terminator uses, add two confidence intervals and
stay above any useful limit in five dimensions.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
from optuna.study import Study
from optuna.trial import TrialState

from hpotune.records.trial import RegretBound
from hpotune.search.algorithms.auto import noise_ratios
from hpotune.search.base.history import History, history_of
from hpotune.search.base.sampler import SamplerSetup
from hpotune.search.base.unit_cube import Cube
from hpotune.search.gp.failure_model import compressed_scores
from hpotune.search.gp.gaussian_process import GaussianProcess, fit, sample_hyperparameters

CONFIDENCE = 0.95
"""Probability, by the model, that the regret is below its bound."""
NEXT_TRIALS = 10
"""Trials whose expected gain is computed."""
MIN_TRIALS, MAX_TRIALS = 10, 300
"""Finished trials that a model needs, and above which fitting one takes more than a second."""
GLOBAL_POINTS, LOCAL_POINTS, POSTERIOR_DRAWS = 256, 96, 512
"""Points over the whole cube, points around the best finished ones, and draws over all points together."""
HYPERPARAMETER_SAMPLES, SAMPLED_UP_TO = 8, 100
"""Hyperparameter samples that share the draws, up to so many trials: the most probable ones alone are overconfident."""
INTERVAL = 10
"""Without `budget.plateau`, the bound is computed at each trial whose number is a multiple of this, for reports."""


def scheduled_regret_bound(study: Study, setup: SamplerSetup, *, plateau: bool) -> RegretBound | None:
    """The regret bound, if it is due at this trial and the model supports the space; otherwise None.

    `plateau`: whether `budget.plateau` is set; then it is due at every trial.
    """
    if setup.objectives > 1 or setup.conditional or not (plateau or setup.number % INTERVAL == 0):
        return None
    trials = study.get_trials(deepcopy=False)
    finished = islice((trial for trial in trials if trial.state == TrialState.COMPLETE), MAX_TRIALS + 1)
    if not MIN_TRIALS <= sum(1 for _ in finished) <= MAX_TRIALS:
        return None
    trials = sorted(trials, key=lambda trial: trial.number)
    space = {name: d for name, d in (setup.space or {}).items() if not d.single()}
    if not space:
        return None
    cube = Cube(space, setup.hints)
    history = history_of(trials, cube, study.direction)
    return regret_bound(cube, history, rng=np.random.default_rng(setup.trial_seed))


def regret_bound(cube: Cube, history: History, *, rng: np.random.Generator) -> RegretBound | None:
    """The regret bound and the expected gain, in units of the objective; None for too few or too many trials."""
    if not max(MIN_TRIALS, len(cube) + 1) <= len(history) <= MAX_TRIALS or np.ptp(history.gains) == 0:
        return None
    scores = compressed_scores(history.gains)
    unit = _score_unit(history.gains, scores)
    model = fit(history.points, scores, noise_ratios(history), cube.unordered)
    points = _evaluation_points(cube, history, model, rng)
    models = [model]
    if len(history) <= SAMPLED_UP_TO:
        models = sample_hyperparameters(model, count=HYPERPARAMETER_SAMPLES, every=4, rng=rng) or [model]
    draws = np.vstack([m.sample(points, count=POSTERIOR_DRAWS // len(models), rng=rng) for m in models])
    best = int(np.argmax(model.predict(history.points)[0]))
    improvement = (
        draws - draws[:, [best]]
    )  # (draws, points): over the best finished point, in units of scores
    return RegretBound(
        regret=unit * float(np.quantile(improvement.max(axis=1), CONFIDENCE)),
        gain=unit * _expected_gain(improvement[:, len(history) :]),
        ahead=NEXT_TRIALS,
        trials=len(history),
    )


def _score_unit(gains: np.ndarray, scores: np.ndarray) -> float:
    """Units of the objective per unit of score, from the upper half, which is not compressed. Shapes: (n,), (n,)."""
    top = gains >= np.median(gains)
    top = top if np.ptp(gains[top]) > 0 else np.ones_like(top)
    return float(np.ptp(gains[top]) / np.ptp(scores[top]))


def _evaluation_points(
    cube: Cube, history: History, model: GaussianProcess, rng: np.random.Generator
) -> np.ndarray:
    """Points at which functions are drawn: the n finished ones first, then new ones. Shape (m, d)."""
    d = len(cube)
    mean, _ = model.predict(history.points)
    top = history.points[np.argsort(-mean)[:5]]
    centres = top[rng.integers(len(top), size=LOCAL_POINTS)]
    local = centres + 10 ** rng.uniform(-2, -0.5, (LOCAL_POINTS, 1)) * rng.standard_normal((LOCAL_POINTS, d))
    local[:, cube.unordered] = rng.random((LOCAL_POINTS, int(cube.unordered.sum())))
    candidates = cube.snap(np.vstack([rng.random((GLOBAL_POINTS, d)), np.clip(local, 0.0, 1.0)]))
    known = {row.tobytes() for row in history.points}
    new = candidates[[row.tobytes() not in known for row in candidates]]
    return np.vstack([history.points, np.unique(new, axis=0)])


def _expected_gain(improvement: np.ndarray) -> float:
    """Expected improvement of NEXT_TRIALS new points over the best finished one, in units of scores.

    `improvement`: that of each new point in each draw, shape (draws, m). Points are chosen greedily: each is the one
    with the largest expected improvement over the best of those before it.
    """
    reached = np.zeros(len(improvement))  # best improvement so far, in each draw
    for _ in range(min(NEXT_TRIALS, improvement.shape[1])):
        expected = np.maximum(improvement, reached[:, None]).mean(axis=0)
        reached = np.maximum(reached, improvement[:, int(np.argmax(expected))])
    return float(reached.mean())

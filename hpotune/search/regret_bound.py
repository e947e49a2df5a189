"""What more trials would bring: a bound on the regret, and the gain to expect of the next ones.

A Gaussian process is fitted to the finished trials, and its posterior drawn jointly over many points. The regret of
stopping now is, in each draw, how much the best point of all lies above the best finished one. Source: Wilson 2024,
arXiv 2402.16811 (stopping by a probabilistic bound on the simple regret; the bounds of Makarova et al. 2022, which
Optuna's terminator uses, add two confidence intervals and stay above any useful limit in five dimensions).
"""

from __future__ import annotations

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
"""Probability with which the regret stays below its bound."""
NEXT_TRIALS = 10
"""Trials whose gain is told."""
MIN_TRIALS, MAX_TRIALS = 10, 300
"""Finished trials from which a model says something, and beyond which fitting one costs more than a second."""
GLOBAL_POINTS, LOCAL_POINTS, POSTERIOR_DRAWS = 256, 96, 512
"""Points over the cube, points around the best finished ones, and joint draws over all of them."""
HYPERPARAMETER_SAMPLES, SAMPLED_UP_TO = 8, 100
"""Hyperparameters that the draws are shared by, up to so many trials: the most probable ones alone are too sure."""


INTERVAL = 10
"""One trial in so many looks ahead for the eye of the user; with `budget.plateau` each does."""


def scheduled_regret_bound(study: Study, setup: SamplerSetup, *, plateau: bool) -> RegretBound | None:
    """What more trials would bring, where this trial is one that looks; None for spaces the model does not take."""
    if setup.objectives > 1 or setup.conditional or not (plateau or setup.number % INTERVAL == 0):
        return None
    trials = sorted(study.get_trials(deepcopy=False), key=lambda trial: trial.number)
    if not MIN_TRIALS <= sum(trial.state == TrialState.COMPLETE for trial in trials) <= MAX_TRIALS:
        return None
    space = {name: d for name, d in (setup.space or {}).items() if not d.single()}
    if not space:
        return None
    cube = Cube(space, setup.hints)
    history = history_of(trials, cube, study.direction)
    return regret_bound(cube, history, rng=np.random.default_rng(setup.trial_seed))


def regret_bound(cube: Cube, history: History, *, rng: np.random.Generator) -> RegretBound | None:
    """What stopping now would give away; None where too little, or too much for this model, is known."""
    if not max(MIN_TRIALS, len(cube) + 1) <= len(history) <= MAX_TRIALS or np.ptp(history.gains) == 0:
        return None
    scores = compressed_scores(history.gains)
    scale = _score_unit(history.gains, scores)
    model = fit(history.points, scores, noise_ratios(history), cube.unordered)
    points = _evaluation_points(cube, history, model, rng)
    models = (
        sample_hyperparameters(model, count=HYPERPARAMETER_SAMPLES, every=4, rng=rng)
        if len(history) <= SAMPLED_UP_TO
        else []
    ) or [model]
    draws = np.vstack([m.sample(points, count=POSTERIOR_DRAWS // len(models), rng=rng) for m in models])
    best = int(np.argmax(model.predict(history.points)[0]))
    above = draws - draws[:, [best]]
    return RegretBound(
        regret=scale * float(np.quantile(above.max(axis=1), CONFIDENCE)),
        gain=scale * _expected_gain(above, len(history)),
        ahead=NEXT_TRIALS,
        trials=len(history),
    )


def _score_unit(gains: np.ndarray, scores: np.ndarray) -> float:
    """Gain a unit of score, in the upper half, where nothing is drawn in."""
    top = gains >= np.median(gains)
    top = top if np.ptp(gains[top]) > 0 else np.ones_like(top)
    return float(np.ptp(gains[top]) / np.ptp(scores[top]))


def _evaluation_points(
    cube: Cube, history: History, model: GaussianProcess, rng: np.random.Generator
) -> np.ndarray:
    """The finished points, then free ones over the cube and near the best."""
    d = len(cube)
    mean, _ = model.predict(history.points)
    top = history.points[np.argsort(-mean)[:5]]
    near = top[rng.integers(len(top), size=LOCAL_POINTS)] + 10 ** rng.uniform(
        -2, -0.5, (LOCAL_POINTS, 1)
    ) * rng.standard_normal((LOCAL_POINTS, d))
    near[:, cube.unordered] = rng.random((LOCAL_POINTS, int(cube.unordered.sum())))
    free = cube.snap(np.vstack([rng.random((GLOBAL_POINTS, d)), np.clip(near, 0.0, 1.0)]))
    known = {row.tobytes() for row in history.points}
    fresh = free[[row.tobytes() not in known for row in free]]
    return np.vstack([history.points, np.unique(fresh, axis=0)])


def _expected_gain(above: np.ndarray, finished: int) -> float:
    """What AHEAD free points, each the best next to those before it, are expected to bring over the best finished one.

    `above`: draws (DRAWS, m), the finished points first.
    """
    reached = np.zeros(len(above))
    free = above[:, finished:]
    for _ in range(min(NEXT_TRIALS, free.shape[1])):
        each = np.maximum(free, reached[:, None]).mean(axis=0)
        reached = np.maximum(reached, free[:, int(np.argmax(each))])
    return float(reached.mean())

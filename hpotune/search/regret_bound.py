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

from hpotune.records.trial import Outlook
from hpotune.search.algorithms.auto import weights
from hpotune.search.base.history import History, history_of
from hpotune.search.base.sampler import Setup
from hpotune.search.base.unit_cube import Cube
from hpotune.search.gp.failure_model import winsorised
from hpotune.search.gp.gaussian_process import Surrogate, drawn, fit

SURE = 0.95
"""Probability with which the regret stays below its bound."""
AHEAD = 10
"""Trials whose gain is told."""
LEAST, MOST = 10, 300
"""Finished trials from which a model says something, and beyond which fitting one costs more than a second."""
SPREAD, NEAR, DRAWS = 256, 96, 512
"""Points over the cube, points around the best finished ones, and joint draws over all of them."""
MODELS, SETTLED = 8, 100
"""Hyperparameters that the draws are shared by, up to so many trials: the most probable ones alone are too sure."""


EVERY = 10
"""One trial in so many looks ahead for the eye of the user; with `budget.plateau` each does."""


def look_ahead(study: Study, setup: Setup, *, plateau: bool) -> Outlook | None:
    """What more trials would bring, where this trial is one that looks; None for spaces the model does not take."""
    if setup.objectives > 1 or setup.conditional or not (plateau or setup.number % EVERY == 0):
        return None
    trials = sorted(study.get_trials(deepcopy=False), key=lambda trial: trial.number)
    if not LEAST <= sum(trial.state == TrialState.COMPLETE for trial in trials) <= MOST:
        return None
    space = {name: d for name, d in (setup.space or {}).items() if not d.single()}
    if not space:
        return None
    cube = Cube(space, setup.hints)
    history = history_of(trials, cube, study.direction)
    return outlook(cube, history, rng=np.random.default_rng(setup.trial_seed))


def outlook(cube: Cube, history: History, *, rng: np.random.Generator) -> Outlook | None:
    """What stopping now would give away; None where too little, or too much for this model, is known."""
    if not max(LEAST, len(cube) + 1) <= len(history) <= MOST or np.ptp(history.gains) == 0:
        return None
    scores = winsorised(history.gains)
    scale = _scale(history.gains, scores)
    model = fit(history.points, scores, weights(history), cube.unordered)
    points = _points(cube, history, model, rng)
    models = (drawn(model, count=MODELS, every=4, rng=rng) if len(history) <= SETTLED else []) or [model]
    draws = np.vstack([m.sample(points, count=DRAWS // len(models), rng=rng) for m in models])
    best = int(np.argmax(model.predict(history.points)[0]))
    above = draws - draws[:, [best]]
    return Outlook(
        regret=scale * float(np.quantile(above.max(axis=1), SURE)),
        gain=scale * _gain(above, len(history)),
        ahead=AHEAD,
        trials=len(history),
    )


def _scale(gains: np.ndarray, scores: np.ndarray) -> float:
    """Gain a unit of score, in the upper half, where nothing is drawn in."""
    top = gains >= np.median(gains)
    top = top if np.ptp(gains[top]) > 0 else np.ones_like(top)
    return float(np.ptp(gains[top]) / np.ptp(scores[top]))


def _points(cube: Cube, history: History, model: Surrogate, rng: np.random.Generator) -> np.ndarray:
    """The finished points, then free ones over the cube and near the best."""
    d = len(cube)
    mean, _ = model.predict(history.points)
    top = history.points[np.argsort(-mean)[:5]]
    near = top[rng.integers(len(top), size=NEAR)] + 10 ** rng.uniform(
        -2, -0.5, (NEAR, 1)
    ) * rng.standard_normal((NEAR, d))
    near[:, cube.unordered] = rng.random((NEAR, int(cube.unordered.sum())))
    free = cube.snap(np.vstack([rng.random((SPREAD, d)), np.clip(near, 0.0, 1.0)]))
    known = {row.tobytes() for row in history.points}
    fresh = free[[row.tobytes() not in known for row in free]]
    return np.vstack([history.points, np.unique(fresh, axis=0)])


def _gain(above: np.ndarray, finished: int) -> float:
    """What AHEAD free points, each the best next to those before it, are expected to bring over the best finished one.

    `above`: draws (DRAWS, m), the finished points first.
    """
    reached = np.zeros(len(above))
    free = above[:, finished:]
    for _ in range(min(AHEAD, free.shape[1])):
        each = np.maximum(free, reached[:, None]).mean(axis=0)
        reached = np.maximum(reached, free[:, int(np.argmax(each))])
    return float(reached.mean())

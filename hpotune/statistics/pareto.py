"""How certain it is that a trial is on the Pareto front: in what share of draws of the items no trial dominates it.

The errors of all trials and all objectives are drawn together, with the covariance that their common items give them:
two metrics of one task change with the same items, and so do two trials. A draw is the observed scores plus errors of
that covariance, which is what a bootstrap over items tends to. An objective without errors stays as it was measured.

Source: Efron and Tibshirani 1998, "The problem of regions" (the bootstrap probability of a region); Chernozhukov,
Chetverikov and Kato 2013 (Gaussian approximation of the bootstrap), as in best_set.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpotune.statistics.score_table import Floats

DRAWS = 1000
EQUAL = 1e-9
"""Differences below this share of an objective's spread and error are rounding."""


def front_probabilities(values: Floats, parts: Sequence[Floats | None], groups: Sequence[int]) -> Floats:
    """The probability of each trial to be on the front, as a number from 0 to 1. Shape: (trials,).

    Shapes: `values` (trials, objectives), larger is better; `parts` one (trials, clusters) for each objective, as
    ScoreTable has them, None: no error. `groups`: objectives of one number share their clusters of items.
    """
    rng = np.random.default_rng(0)
    errors = [0.0 if one is None else float(np.sqrt((one**2).sum(axis=1).max())) for one in parts]
    slack = EQUAL * (np.ptp(values, axis=0) + np.array(errors))
    counts: Floats = np.zeros(len(values))
    for _ in range(DRAWS):
        counts += ~dominated(values + _errors(rng, values.shape, parts, groups), slack)
    return counts / DRAWS


def _errors(
    rng: np.random.Generator, shape: tuple[int, ...], parts: Sequence[Floats | None], groups: Sequence[int]
) -> Floats:
    """One draw of the errors of all scores. Shape: (trials, objectives)."""
    drawn: dict[int, Floats] = {}
    errors: Floats = np.zeros(shape)
    for objective, (one, group) in enumerate(zip(parts, groups, strict=True)):
        if one is not None:
            if group not in drawn:
                drawn[group] = rng.standard_normal((one.shape[1],))
            errors[:, objective] = one @ drawn[group]
    return errors


def dominated(values: Floats, slack: Floats) -> np.ndarray:
    """Whether another trial is at least as good in every objective and better in one. Shape: (trials,) of bool.

    Shapes: `values` (trials, objectives), larger is better; `slack` (objectives,): differences up to it are none.
    """
    count = len(values)
    as_good, better = np.ones((count, count), bool), np.zeros((count, count), bool)
    for one, least in zip(values.T, slack, strict=True):
        ahead = one[:, None] - one  # of another trial (rows) over a trial (columns)
        as_good &= ahead >= -least
        better |= ahead > least
    return np.asarray((as_good & better).any(axis=0))

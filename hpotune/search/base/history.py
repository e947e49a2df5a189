"""The history of a study as arrays: finished, pending and failed points. Made from the trials alone, pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpotune.search.base.unit_cube import Cube

CONSTRAINTS_KEY = "constraints"
"""Optuna's system attribute with the constraint values of a finished trial (> 0: violated)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """Trials in the order of their numbers. Points are in the unit cube of d axes.

    A gain is the value of the first objective, negated where it is minimized: larger is better.
    """

    points: np.ndarray
    """Of finished trials with a score that violate no constraint. Shape (n, d)."""
    gains: np.ndarray
    """Shape (n,)."""
    stderrs: np.ndarray
    """Standard errors of the gains, in units of the objective; NaN: unknown. Shape (n,)."""
    numbers: np.ndarray
    """Their trial numbers. Shape (n,)."""
    pending: np.ndarray
    """Points of running trials, and of trials below the rung level that is shown. Shape (p, d)."""
    failed: np.ndarray
    """Points of trials that failed (out of memory, diverged) or violate a constraint. Shape (b, d)."""

    def __len__(self) -> int:
        """Number n of finished points."""
        return len(self.gains)

    def with_pending(self, point: np.ndarray) -> History:
        """The history with one more pending point, shape (d,)."""
        return replace(self, pending=np.vstack([self.pending, point[None]]))

    @property
    def known_points(self) -> np.ndarray:
        """Finished, pending and failed points. Shape (n + p + b, d)."""
        return np.vstack([self.points, self.pending, self.failed])


def history_of(trials: Iterable[FrozenTrial], cube: Cube, direction: StudyDirection) -> History:
    """The history of trials in a cube; trials without a valid value on each axis are left out."""
    sign = -1.0 if direction == StudyDirection.MINIMIZE else 1.0
    usable = [trial for trial in trials if trial.params and cube.contains(trial.params)]
    scored = [trial for trial in usable if _has_score(trial)]
    broken = [trial for trial in usable if trial.state == TrialState.FAIL or _violates_constraint(trial)]
    running = [trial for trial in usable if trial.state == TrialState.RUNNING or _below_shown_level(trial)]
    values = [trial.values[0] if trial.values else math.nan for trial in scored]
    return History(
        points=_stack([cube.point(trial.params) for trial in scored], len(cube)),
        gains=sign * np.array(values, dtype=float),
        stderrs=np.array([_stderr(trial) for trial in scored], dtype=float),
        numbers=np.array([trial.number for trial in scored], dtype=int),
        pending=_stack([cube.point(trial.params) for trial in running], len(cube)),
        failed=_stack([cube.point(trial.params) for trial in broken], len(cube)),
    )


def _has_score(trial: FrozenTrial) -> bool:
    finite = bool(trial.values) and all(map(math.isfinite, trial.values))
    return trial.state == TrialState.COMPLETE and finite and not _violates_constraint(trial)


def _below_shown_level(trial: FrozenTrial) -> bool:
    """Whether it has no score at the rung level that is shown (storage_view.trials_at_level)."""
    return trial.state == TrialState.PRUNED and bool(trial.user_attrs.get("rungs"))


def _violates_constraint(trial: FrozenTrial) -> bool:
    found = trial.system_attrs.get(CONSTRAINTS_KEY) if trial.state == TrialState.COMPLETE else None
    return bool(found) and any(excess > 0 for excess in found or ())


def _stderr(trial: FrozenTrial) -> float:
    found = trial.user_attrs.get("stderrs") or (None,)
    return math.nan if found[0] is None else float(found[0])


def _stack(points: Sequence[np.ndarray], dimensions: int) -> np.ndarray:
    return np.vstack(points) if points else np.empty((0, dimensions))

"""What a search knows: the points that were scored, those that run, those that broke. Read from the store alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpotune.search.base.unit_cube import Cube

CONSTRAINTS_KEY = "constraints"
"""Optuna's name of the system attribute that holds how far a finished trial breaks each constraint (> 0: broken)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """Points in the unit cube, in the order of trial numbers. Gains are values turned so that larger is better."""

    points: np.ndarray
    """Finished ones, shape (n, d)."""
    gains: np.ndarray
    """Of the first objective, shape (n,)."""
    stderrs: np.ndarray
    """Standard errors of the gains, NaN where unknown. Shape (n,)."""
    numbers: np.ndarray
    """Their trials, shape (n,)."""
    pending: np.ndarray
    """Points that run now, shape (p, d)."""
    failed: np.ndarray
    """Points that gave no value, or one that a constraint forbids: they ran out of memory or diverged. Shape (b, d)."""

    def __len__(self) -> int:
        """Finished points."""
        return len(self.gains)

    def with_pending(self, point: np.ndarray) -> History:
        """The same with one more point that runs."""
        return replace(self, pending=np.vstack([self.pending, point[None]]))

    @property
    def known_points(self) -> np.ndarray:
        """Every point that was drawn, shape (n + p + b, d)."""
        return np.vstack([self.points, self.pending, self.failed])


def history_of(trials: Iterable[FrozenTrial], cube: Cube, direction: StudyDirection) -> History:
    """What trials tell of a cube; those without a value on each of its axes tell nothing."""
    sign = -1.0 if direction == StudyDirection.MINIMIZE else 1.0
    told = [trial for trial in trials if trial.params and cube.contains(trial.params)]
    scored = [trial for trial in told if _has_score(trial)]
    broken = [trial for trial in told if trial.state == TrialState.FAIL or _violates_constraint(trial)]
    running = [trial for trial in told if trial.state == TrialState.RUNNING or _below_shown_level(trial)]
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
    """Whether it has not come so far as those that are compared (view.on_one_level)."""
    return trial.state == TrialState.PRUNED and bool(trial.user_attrs.get("rungs"))


def _violates_constraint(trial: FrozenTrial) -> bool:
    found = trial.system_attrs.get(CONSTRAINTS_KEY) if trial.state == TrialState.COMPLETE else None
    return bool(found) and any(excess > 0 for excess in found or ())


def _stderr(trial: FrozenTrial) -> float:
    found = trial.user_attrs.get("stderrs") or (None,)
    return math.nan if found[0] is None else float(found[0])


def _stack(points: Sequence[np.ndarray], dimensions: int) -> np.ndarray:
    return np.vstack(points) if points else np.empty((0, dimensions))

"""What the files of single trials add to a report: learning curves and sanity checks. Only a few trials are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpotune.config.json_file import DamagedFileError, json_lines, optional_object
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import StudyFileError
from hpotune.records.trial import TrialRow
from hpotune.schedule.ranking import by_ranked_value, ranked_objective
from hpotune.workspace.folder import StudyFolder

MOST_CURVES = 20
MOST_CHECKED = 50
MOST_POINTS = 120
"""Points of one curve that are kept, the last one included."""
CHECKS = ("identity", "moved", "reload")


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningCurve:
    """The training loss of a trial."""

    number: int
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    """Mean since the previous point, in nats per token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckView:
    """One sanity check over trials."""

    name: str
    passed: int
    failed: int
    """Trials that failed it; they have no score."""
    read: int
    """Trials whose result was read for it."""


def learning_curves(
    folder: StudyFolder, config: StudyConfig, rows: Sequence[TrialRow]
) -> tuple[LearningCurve, ...]:
    """The curves of the best trials, of as many others as MOST_CURVES allows, and of running ones. Best first."""
    found = []
    for row in _best_first(config, rows):
        curve = loss_curve(folder.trial(row.number))
        points = [(step, loss) for step, loss in curve if math.isfinite(loss)]
        if points:
            kept = _thinned(points)
            found.append(
                LearningCurve(
                    number=row.number,
                    steps=tuple(step for step, _ in kept),
                    losses=tuple(loss for _, loss in kept),
                )
            )
        if len(found) == MOST_CURVES:
            break
    return tuple(found)


def _best_first(config: StudyConfig, rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Trials that may have a curve: scored ones, best first, then running ones."""
    objectives = config.score.objective
    sign = 1.0 if ranked_objective(objectives, config.best).sense == "maximize" else -1.0
    tried = [row for row in rows if row.kind == "trial" and row.values]
    scored = by_ranked_value(objectives, config.best, tried)
    running = [row for row in rows if row.kind == "trial" and row.state == "running" and not row.values]
    ordered = sorted(scored, key=lambda row: (-sign * row.values[0], row.number))
    best, rest = ordered[: MOST_CURVES // 2], ordered[MOST_CURVES // 2 :]
    spread = rest[:: max(1, len(rest) // (MOST_CURVES // 2))]
    return [*best, *spread[: MOST_CURVES // 2], *running]


def loss_curve(folder: Path) -> list[tuple[int, float]]:
    """Steps and losses of a trial, by its own folder; damaged lines are left out."""
    points = []
    for point in json_lines(folder / "curve.jsonl"):
        with suppress(ValueError, KeyError, TypeError, OverflowError):
            points.append((int(point["step"]), float(point["loss"])))
    return points


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    every = math.ceil(len(points) / MOST_POINTS)
    kept = list(points[::every])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def check_views(folder: StudyFolder, config: StudyConfig, rows: Sequence[TrialRow]) -> tuple[CheckView, ...]:
    """The sanity checks of a fine-tuning study, by the results of its best trials and its recorded failures."""
    if not config.trains:
        return ()
    chosen = [row for row in _best_first(config, rows) if row.state == "finished"][:MOST_CHECKED]
    results = [_checks_of(folder.trial(row.number)) for row in chosen]
    failures = [
        row.failure.message for row in rows if row.failure is not None and row.failure.cause == "truth"
    ]
    return tuple(
        CheckView(
            name=name,
            passed=sum(one.get(name) is True for one in results),
            failed=sum(message.startswith(name) for message in failures),
            read=sum(name in one for one in results),
        )
        for name in CHECKS
    )


def _checks_of(folder: Path) -> dict[str, bool]:
    """Check -> whether it passed, of a trial's result.json."""
    try:
        result = optional_object(folder / "result.json") or {}
    except (OSError, StudyFileError, DamagedFileError):
        return {}
    checks = result.get("checks")
    if not isinstance(checks, dict):
        return {}
    return {name: one.get("ok") is True for name, one in checks.items() if isinstance(one, dict)}

"""Trials as rows of a chart: which series each belongs to, where it lies on the score's axis, and which are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpotune.reporting.format import number, point
from hpotune.reporting.page.charts.look import Series
from hpotune.reporting.paired_difference import Z_95
from hpotune.reporting.views.best import ObjectiveView
from hpotune.reporting.views.study_report import StudyReport
from hpotune.reporting.views.trial_view import TrialView
from hpotune.reporting.views.trial_view import scored as value_and_error

MOST_DRAWN = 600
"""Points of one panel; with more trials, evenly spaced ones are drawn."""
FAR = 15
"""A score is drawn at the edge of its axis if it is so many times further behind the best than three quarters of the
trials are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreAxis:
    """The axis of an objective, or of another number that trials are ranked by."""

    label: str
    maximize: bool
    limit: float | None
    """Scores that are worse are drawn at the edge; None: all scores fit."""
    beyond: int
    """Trials that are drawn at the edge."""

    def shown(self, value: float) -> float:
        """The value, or the edge of the axis where it lies beyond."""
        if self.limit is None:
            return value
        return max(value, self.limit) if self.maximize else min(value, self.limit)

    @property
    def note(self) -> str:
        """What a caption says of the edge."""
        if not self.beyond:
            return ""
        trials = "trial lies" if self.beyond == 1 else "trials lie"
        return f"{self.beyond} {trials} beyond the axis and are drawn at its edge ({number(self.limit)} or worse)"


def value_of(trial: TrialView, label: str) -> float:
    """The number of a trial that `scored` has found to have it."""
    value = value_and_error(trial, label)[0]
    assert value is not None, f"trial {trial.number} has no {label}"
    return value


def scored(report: StudyReport, *, label: str | None = None) -> list[TrialView]:
    """The trials with a score, the baseline left out. `label`: instead of what trials are ranked by."""
    wanted = label or report.best.ranked_by.label
    return [
        trial
        for trial in report.trials
        if trial.kind == "trial" and trial.values and value_and_error(trial, wanted)[0] is not None
    ]


def score_axis(report: StudyReport, one: ObjectiveView | None = None) -> ScoreAxis:
    """The axis over all trials. `one`: instead of what trials are ranked by."""
    one = one or report.best.ranked_by
    label, maximize = one.label, one.direction == "maximize"
    values = sorted((value_of(trial, label) for trial in scored(report, label=label)), reverse=maximize)
    limit, beyond = None, 0
    if len(values) >= 8:
        best, most = values[0], values[(3 * len(values)) // 4]
        edge = best + FAR * (most - best)
        beyond = sum(value < edge if maximize else value > edge for value in values)
        limit = edge if beyond and most != best else None
    return ScoreAxis(label=label, maximize=maximize, limit=limit, beyond=beyond if limit is not None else 0)


def base_value(report: StudyReport, axis: ScoreAxis) -> float | None:
    """The base model's number, where it lies on the axis."""
    base = report.best.baseline
    value = value_and_error(base, axis.label)[0] if base is not None else None
    return value if value is not None and axis.shown(value) == value else None


def series_of(report: StudyReport, trial: TrialView) -> Series:
    """The series that a trial belongs to."""
    best = report.best
    if best.best is not None and trial.number == best.best.number:
        return "best"
    if trial.number in _special(report):
        return "may be the best"
    if is_excluded(report, trial):
        return "excluded"
    return "pruned" if trial.state == "stopped" else "other trial"


def is_excluded(report: StudyReport, trial: TrialView) -> bool:
    """Whether a trial cannot be the best, by a limit or the rule."""
    return bool(trial.breaks) or trial.number in report.best.excluded_by_rule


def _special(report: StudyReport) -> set[int]:
    """Trials that may be the best, or are on the front."""
    return {one.number for one in report.best.tied} | {one.number for one in report.best.front}


def drawn(report: StudyReport, trials: Sequence[TrialView], *, most: int = MOST_DRAWN) -> list[TrialView]:
    """At most about so many trials: all that may be the best, and evenly spaced others."""
    if len(trials) <= most:
        return list(trials)
    special = _special(report) | ({report.best.best.number} if report.best.best is not None else set())
    if report.best.pareto is not None:
        special |= {one.number for one in report.best.pareto.candidates}
    special = set(sorted(special)[: most // 2])
    step = len(trials) / (most - len(special))
    even = {trials[int(index * step)].number for index in range(most - len(special))}
    return [trial for trial in trials if trial.number in even or trial.number in special]


def thinning_note(shown: int, of: int) -> str:
    """What a caption says where not all trials are drawn."""
    return f"{shown} of {of} trials are drawn; `--format csv` holds all" if shown < of else ""


def score_row(
    report: StudyReport, trial: TrialView, axis: ScoreAxis, *, with_point: bool = False
) -> dict[str, Any]:
    """A trial as a row: n number, y score as drawn, v score as text, s series, lo and hi ends of the error bar."""
    value, error = value_of(trial, axis.label), value_and_error(trial, axis.label)[1]
    y = axis.shown(value)
    row: dict[str, Any] = {
        "n": trial.number,
        "y": six_digits(y),
        "v": number(value) + (f" ± {error:.2g}" if error else ""),
        "s": series_of(report, trial) if y == value else "off the axis",
    }
    if error and y == value:
        row |= {"lo": six_digits(y - Z_95 * error), "hi": six_digits(y + Z_95 * error)}
    return row | ({"p": point(trial.params)} if with_point else {})


def six_digits(value: float) -> float:
    """The value with six significant digits: more cannot be seen, and costs space."""
    return float(f"{value:.6g}")


def used_series(rows: Sequence[dict[str, Any]]) -> list[Series]:
    """The series that occur in rows."""
    return list(dict.fromkeys(row["s"] for row in rows))

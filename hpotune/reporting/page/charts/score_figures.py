"""Figures of scores: over trials, at rungs, and while a trial trains."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from hpotune.reporting.format import number
from hpotune.reporting.page.charts.figure import Figure, Panel, missing, sentence
from hpotune.reporting.page.charts.look import (
    Look,
    Spec,
    chart,
    layer,
    number_axis,
    series_encoding,
    tooltip,
)
from hpotune.reporting.page.charts.trial_points import (
    ScoreAxis,
    drawn,
    is_excluded,
    score_axis,
    score_row,
    scored,
    series_of,
    thinning_note,
    used_series,
    value_of,
)
from hpotune.reporting.paired_difference import Z_95
from hpotune.reporting.views.study_report import StudyReport
from hpotune.reporting.views.trial_view import TrialView
from hpotune.reporting.views.trial_view import scored as value_and_error

_NO_SCORE = "no trial has a score yet"
_POINT = {"type": "point"}


def score_over_trials(report: StudyReport, look: Look) -> Figure:
    """Each trial's score with its 95 % interval, the best so far, and the base model."""
    name, title = "score-over-trials", "Score over trials"
    if not scored(report):
        return missing(name, title, _NO_SCORE)
    panels, notes = [], []
    for one in report.scores:
        axis, trials = score_axis(report, one), scored(report, label=one.label)
        if not trials:
            continue
        shown = drawn(report, trials)
        rows = [score_row(report, trial, axis, with_point=True) for trial in shown]
        better = "higher" if axis.maximize else "lower"
        layers = [
            *_base_layers(report, one.label, look, last=max(trial.number for trial in trials)),
            layer(
                [row for row in rows if "lo" in row],
                {"type": "rule", "color": look.trial, "opacity": 0.45, "clip": True},
                x={"field": "n", "type": "quantitative"},
                y={"field": "lo", "type": "quantitative"},
                y2={"field": "hi"},
            ),
            _best_so_far(report, trials, axis, look),
            layer(
                rows,
                _POINT,
                x=number_axis("n", "trial", grid=False),
                y=number_axis("y", f"{one.label} ({better} is better)"),
                tooltip=tooltip(n="trial", v=one.label, p="at"),
                **series_encoding(look, used_series(rows)),
            ),
        ]
        if not any("lo" in row for row in rows):
            layers.pop(-3)
        notes += [thinning_note(len(shown), len(trials)), axis.note]
        panels.append(
            Panel(title=one.label, spec=chart(look, layers), alt=_over_trials_alt(report, trials, one.label))
        )
    errors = any(value_and_error(trial, one.label)[1] for trial in report.trials for one in report.scores)
    caption = sentence(
        [
            "Bars are 95 % intervals over the items of the task"
            if errors
            else "The scores have no standard error",
            "the line is the best score so far",
            "the dashed line is the base model" if report.best.baseline else "",
            *dict.fromkeys(notes),
        ]
    )
    return Figure(name=name, title=title, caption=caption, panels=tuple(panels))


def _over_trials_alt(report: StudyReport, trials: Sequence[TrialView], label: str) -> str:
    values = [value_of(trial, label) for trial in trials]
    best = report.best.best
    found = (
        f"The best is trial {best.number} with {number(value_and_error(best, label)[0])}. " if best else ""
    )
    return (
        f"{len(trials)} trials with {label} from {number(min(values))} to {number(max(values))}. {found}"
        "The table of trials holds the same numbers."
    )


def _best_so_far(report: StudyReport, trials: Sequence[TrialView], axis: ScoreAxis, look: Look) -> Spec:
    """A step at each trial that improves on all before it; trials that cannot be the best do not count."""
    counted = [trial for trial in trials if not is_excluded(report, trial)] or list(trials)
    values = [axis.shown(value_of(trial, axis.label)) for trial in counted]
    bests = list(accumulate(values, max if axis.maximize else min))
    steps = [
        {"n": trial.number, "y": best}
        for at, (trial, best) in enumerate(zip(counted, bests, strict=True))
        if at in (0, len(counted) - 1) or best != bests[at - 1]
    ]
    return layer(
        steps,
        {"type": "line", "interpolate": "step-after", "color": look.best, "strokeWidth": 2, "clip": True},
        x={"field": "n", "type": "quantitative"},
        y={"field": "y", "type": "quantitative"},
    )


def _base_layers(report: StudyReport, label: str, look: Look, *, last: int) -> list[Spec]:
    """The base model's score as a dashed line with its 95 % band."""
    base = report.best.baseline
    value, found = value_and_error(base, label) if base is not None else (None, None)
    if value is None:
        return []
    error = found or 0.0
    row = {
        "y": value,
        "lo": value - Z_95 * error,
        "hi": value + Z_95 * error,
        "a": 0,
        "b": last,
        "t": "base model",
    }
    band = layer(
        [row],
        {"type": "rect", "color": look.muted, "opacity": 0.14, "clip": True},
        x={"field": "a", "type": "quantitative"},
        x2={"field": "b"},
        y={"field": "lo", "type": "quantitative"},
        y2={"field": "hi"},
    )
    line = layer(
        [row],
        {"type": "rule", "color": look.base, "strokeDash": [5, 4], "clip": True},
        y={"field": "y", "type": "quantitative"},
        tooltip=tooltip(t="", y=label),
    )
    return [band, line] if error else [line]


def learning_curves(report: StudyReport, look: Look) -> Figure:
    """Training loss by step."""
    name, title = "learning-curves", "Learning curves"
    if not report.curves:
        reason = (
            "no trial has written a learning curve yet"
            if report.setup.kind == "fine-tuning"
            else "only fine-tuning studies have them"
        )
        return missing(name, title, reason)
    best = report.best.best.number if report.best.best else None
    rows = [
        {
            "n": str(curve.number),
            "x": step,
            "y": float(f"{loss:.5g}"),
            "s": "best" if curve.number == best else "trial",
        }
        for curve in reversed(report.curves)  # the best one is drawn over the others
        for step, loss in zip(curve.steps, curve.losses, strict=True)
    ]
    layers = [
        layer(
            rows,
            {"type": "line", "strokeWidth": 1.4, "clip": True},
            x=number_axis("x", "optimizer step", grid=False),
            y=number_axis("y", "training loss (nats per token)", domain=_loss_domain(report)),
            detail={"field": "n", "type": "nominal"},
            color=_two_colours(look),
            opacity={"condition": {"test": "datum.s == 'best'", "value": 1}, "value": 0.45},
            tooltip=tooltip(n="trial", x="step", y="loss"),
        )
    ]
    caption = sentence(
        [
            f"Of {len(report.curves)} trials: the best ones and others evenly spaced by score",
            _cut_note(report),
        ]
    )
    alt = f"Training loss by step of {len(report.curves)} trials; the best trial is trial {best}."
    return Figure(
        name=name, title=title, caption=caption, panels=(Panel(title="", spec=chart(look, layers), alt=alt),)
    )


def _two_colours(look: Look) -> Spec:
    return {
        "field": "s",
        "type": "nominal",
        "scale": {"domain": ["best", "trial"], "range": [look.best, look.trial]},
    }


def _loss_domain(report: StudyReport) -> list[float] | None:
    """The losses of curves that did not diverge: up to three times the median of the first losses."""
    losses = [loss for curve in report.curves for loss in curve.losses]
    first = sorted(curve.losses[0] for curve in report.curves)
    limit = 3 * first[len(first) // 2]
    return [min(losses), limit] if max(losses) > limit > min(losses) else None


def _cut_note(report: StudyReport) -> str:
    domain = _loss_domain(report)
    return f"Losses above {number(domain[1])} are cut off" if domain else ""


def rungs(report: StudyReport, look: Look) -> Figure:
    """The score of each trial at its rungs."""
    name, title = "rungs", "Scores at rungs"
    trials = [trial for trial in report.trials if trial.rungs and trial.kind == "trial"]
    if report.ladder is None and not any(len(trial.rungs) > 1 for trial in trials):
        return missing(name, title, "the study has no rungs (search.pruner)")
    if not trials:
        return missing(name, title, "no trial has reached a rung yet")
    unit = f"budget ({report.ladder.unit})" if report.ladder else "budget"
    objective = report.best.objectives[0]  # what rungs are compared by, whatever the rule
    first = objective.label
    shown = drawn(report, trials, most=200)
    axis = score_axis(report, objective)
    rows: list[dict[str, Any]] = [
        {
            "n": str(trial.number),
            "x": one.budget,
            "y": axis.shown(one.values[0]),
            "s": series_of(report, trial),
        }
        for trial in shown
        for one in trial.rungs
    ]
    encoding = series_encoding(look, used_series(rows))
    x, y = number_axis("x", unit, grid=False), number_axis("y", first)
    layers = [
        layer(
            rows,
            {"type": "line", "strokeWidth": 1, "opacity": 0.5},
            x=x,
            y=y,
            detail={"field": "n", "type": "nominal"},
            color=encoding["color"],
        ),
        layer(rows, _POINT, x=x, y=y, tooltip=tooltip(n="trial", x=unit, y=first), **encoding),
    ]
    counts = ", ".join(f"{count} at {budget:g}" for budget, count in rung_counts(report))
    caption = sentence([f"Trials scored: {counts}", thinning_note(len(shown), len(trials)), axis.note])
    return Figure(
        name=name,
        title=title,
        caption=caption,
        panels=(Panel(title="", spec=chart(look, layers), alt=f"Trials scored at each budget: {counts}."),),
    )


def rung_counts(report: StudyReport) -> list[tuple[float, int]]:
    """Budgets, and how many trials were scored there."""
    budgets = [one.budget for trial in report.trials for one in trial.rungs if trial.kind == "trial"]
    return [(budget, budgets.count(budget)) for budget in sorted(set(budgets))]

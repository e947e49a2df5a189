"""Figures of hyperparameters: against the score, over trials, together, and by importance."""

from __future__ import annotations

from collections.abc import Sequence

from hpotune.config.yaml_source import Value
from hpotune.reporting.page.charts.figure import Figure, Panel, missing, sentence
from hpotune.reporting.page.charts.look import (
    PANEL_HIGH,
    PANEL_WIDE,
    Look,
    Series,
    Spec,
    chart,
    layer,
    number_axis,
    series_encoding,
    tooltip,
)
from hpotune.reporting.page.charts.trial_points import (
    ScoreAxis,
    base_value,
    drawn,
    score_axis,
    score_row,
    scored,
    series_of,
    six_digits,
    thinning_note,
    used_series,
)
from hpotune.reporting.views.study_report import ParameterView, StudyReport, option_text
from hpotune.reporting.views.trial_view import TrialView

MOST_PARAMETERS = 12
"""Hyperparameters that are drawn: the most important ones, or the first of the study file."""
MOST_POINTS = 400
_POINT = {"type": "point"}


def shown_parameters(report: StudyReport, most: int = MOST_PARAMETERS) -> list[ParameterView]:
    """The hyperparameters that are drawn, in the order of the study file unless there are too many."""
    rank = {one.name: at for at, one in enumerate(report.importance.parameters)}
    tried = [one for one in report.parameters if any(one.name in trial.params for trial in report.trials)]
    if len(tried) <= most:
        return tried
    chosen = sorted(tried, key=lambda one: rank.get(one.name, len(rank)))[:most]
    return [one for one in tried if one in chosen]


def left_out_note(report: StudyReport, shown: Sequence[ParameterView]) -> str:
    of = len(report.parameters)
    return f"{len(shown)} of {of} hyperparameters are drawn" if len(shown) < of else ""


def score_by_parameter(report: StudyReport, look: Look) -> Figure:
    """A panel for each hyperparameter: the score of each trial by its value."""
    name, title = "score-by-parameter", "Score by each hyperparameter"
    trials, parameters = scored(report), shown_parameters(report)
    if not trials or not parameters:
        return missing(name, title, why_no_parameters(report))
    axis = score_axis(report)
    shown = drawn(report, trials, most=MOST_POINTS)
    panels = tuple(_by_parameter(report, one, shown, axis, look) for one in parameters)
    caption = sentence(
        [
            "Each point is a trial; the diamond is the best one",
            "blue ones may be the best too" if _some(report, shown, "may be the best") else "",
            "squares cannot be the best, by a limit or the rule" if _some(report, shown, "excluded") else "",
            "the dashed line is the base model" if base_value(report, axis) is not None else "",
            left_out_note(report, parameters),
            thinning_note(len(shown), len(trials)),
            axis.note,
        ]
    )
    return Figure(name=name, title=title, caption=caption, panels=panels)


def _some(report: StudyReport, shown: Sequence[TrialView], series: Series) -> bool:
    return any(series_of(report, trial) == series for trial in shown)


def why_no_parameters(report: StudyReport) -> str:
    return "no trial has a score yet" if report.parameters else "the study searches no hyperparameter"


def _by_parameter(
    report: StudyReport, one: ParameterView, trials: Sequence[TrialView], axis: ScoreAxis, look: Look
) -> Panel:
    rows = [
        {**score_row(report, trial, axis), "x": _coordinate(one, trial.params[one.name])}
        for trial in trials
        if one.name in trial.params
    ]
    x = _value_axis(one, "x", one.name)
    base = base_value(report, axis)
    dashed = {"type": "rule", "color": look.base, "strokeDash": [5, 4]}
    layers = [
        *(
            [layer([{"y": base}], dashed, y={"field": "y", "type": "quantitative"})]
            if base is not None
            else []
        ),
        layer(
            rows,
            {**_POINT, "opacity": 0.75},
            x=x,
            y=number_axis("y", axis.label, ticks=5),
            tooltip=tooltip(n="trial", x=one.name, v=axis.label),
            **series_encoding(look, used_series(rows), legend=False),
        ),
    ]
    best = report.best.best
    at = (
        f"; the best trial has {option_text(best.params[one.name])}"
        if best and one.name in best.params
        else ""
    )
    return Panel(
        title=one.name,
        spec=chart(look, layers, wide=PANEL_WIDE, high=PANEL_HIGH),
        alt=f"{axis.label} of {len(rows)} trials by {one.name} ({one.range_text}){at}.",
    )


def _coordinate(one: ParameterView, value: Value) -> float | str:
    """A value on the axis of its hyperparameter."""
    if one.kind == "choice" or isinstance(value, bool) or not isinstance(value, (int, float)):
        return option_text(value)
    return six_digits(value)


def _value_axis(one: ParameterView, field: str, title: str | None) -> Spec:
    if one.kind == "choice":
        return {
            "field": field,
            "type": "nominal",
            "title": title,
            "sort": list(one.options),
            "axis": {"labelAngle": 0, "labelLimit": 90},
        }
    ends = None if one.low is None or one.high is None or one.low == one.high else [one.low, one.high]
    return number_axis(field, title, log=one.log, domain=ends, ticks=5)


def parameters_over_trials(report: StudyReport, look: Look) -> Figure:
    """A panel for each hyperparameter: its value in each trial, in the order of trials."""
    name, title = "parameters-over-trials", "Hyperparameters over trials"
    trials, parameters = scored(report), shown_parameters(report)
    if not trials or not parameters:
        return missing(name, title, why_no_parameters(report))
    axis = score_axis(report)
    shown = drawn(report, trials, most=MOST_POINTS)
    panels = []
    for one in parameters:
        rows = [
            {**score_row(report, trial, axis), "x": _coordinate(one, trial.params[one.name])}
            for trial in shown
            if one.name in trial.params
        ]
        layers = [
            layer(
                rows,
                {**_POINT, "opacity": 0.75},
                x=number_axis("n", "trial", grid=False, ticks=5),
                y=_value_axis(one, "x", one.name),
                tooltip=tooltip(n="trial", x=one.name, v=axis.label),
                **series_encoding(look, used_series(rows), legend=False),
            )
        ]
        panels.append(
            Panel(
                title=one.name,
                spec=chart(look, layers, wide=PANEL_WIDE, high=PANEL_HIGH),
                alt=f"{one.name} of {len(rows)} trials in the order in which they were proposed.",
            )
        )
    caption = sentence(
        [
            f"The values that the search chose, in order (search.algorithm: {report.setup.algorithm}); "
            "colours as in the first figure",
            left_out_note(report, parameters),
            thinning_note(len(shown), len(trials)),
        ]
    )
    return Figure(name=name, title=title, caption=caption, panels=tuple(panels))


def importance(report: StudyReport, look: Look) -> Figure:
    """Importance of each hyperparameter with its interval, and what is reached by chance."""
    name, title, view = "importance", "Importance of the hyperparameters", report.importance
    if view.why_not:
        return missing(name, title, view.why_not)
    shown = view.parameters[:20]
    rows = [
        {
            "x": one.name,
            "y": round(one.share, 4),
            "lo": round(one.low, 4),
            "hi": round(one.high, 4),
            "c": round(one.by_chance, 4),
        }
        for one in shown
    ]
    y = {"field": "x", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 200}}
    share = {
        "field": "y",
        "type": "quantitative",
        "title": "share of the importance",
        "axis": {"format": ".0%", "tickCount": 6},
    }
    tips = tooltip(x="hyperparameter", y="share", lo="from", hi="to", c="by chance up to")
    layers = [
        layer(
            rows,
            {"type": "bar", "color": look.tied, "opacity": 0.8, "height": {"band": 0.6}},
            y=y,
            x=share,
            tooltip=tips,
        ),
        layer(
            rows,
            {"type": "rule", "color": look.ink, "strokeWidth": 1.5},
            y=y,
            x={"field": "lo", "type": "quantitative"},
            x2={"field": "hi"},
        ),
        layer(
            rows,
            {"type": "tick", "color": look.best, "thickness": 2, "height": {"band": 0.8}},
            y=y,
            x={"field": "c", "type": "quantitative"},
        ),
    ]
    sure = [one.name for one in view.parameters if one.significant]
    caption = sentence(
        [
            f"PED-ANOVA of {view.trials} trials: how much the best {view.top} differ from all in each hyperparameter",
            "lines are 95 % bootstrap intervals, and the orange marks what a hyperparameter without any effect reaches "
            "in 95 % of cases",
            *([f"left out: {view.raced} that ended while they were scored"] if view.raced else []),
        ]
    )
    alt = f"More important than by chance: {', '.join(sure) or 'none'}."
    return Figure(
        name=name,
        title=title,
        caption=caption,
        panels=(Panel(title="", spec=chart(look, layers, high=max(90, 34 * len(rows) + 40)), alt=alt),),
    )

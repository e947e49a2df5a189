"""Parallel coordinates: a line for each trial through its values to its score. Vega-Lite has no chart of this kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hpotune.config.yaml_source import Value
from hpotune.reporting.format import number
from hpotune.reporting.page.charts.figure import Figure, Panel, missing, sentence
from hpotune.reporting.page.charts.look import WIDE, Look, Spec, chart, layer, tooltip
from hpotune.reporting.page.charts.parameter_figures import left_out_note, shown_parameters, why_no_parameters
from hpotune.reporting.page.charts.trial_points import (
    ScoreAxis,
    drawn,
    score_axis,
    scored,
    thinning_note,
    value_of,
)
from hpotune.reporting.views.study_report import ParameterView, StudyReport, option_text
from hpotune.reporting.views.trial_view import TrialView

MOST_LINES = 150


def parallel_coordinates(report: StudyReport, look: Look) -> Figure:
    """A line for each trial through its values on parallel axes, coloured by its score."""
    name, title = "parallel-coordinates", "Parallel coordinates"
    trials, parameters = scored(report), shown_parameters(report, most=9)
    if not trials or not parameters:
        return missing(name, title, why_no_parameters(report))
    axis = score_axis(report)
    shown = drawn(report, trials, most=MOST_LINES)
    ordered = sorted(shown, key=lambda trial: value_of(trial, axis.label), reverse=axis.maximize)
    rank = {trial.number: at / max(1, len(ordered) - 1) for at, trial in enumerate(ordered)}
    best = report.best.best.number if report.best.best else -1
    rows = [
        {
            "n": trial.number,
            "a": at,
            "h": height,
            "r": round(rank[trial.number], 3),
            "v": number(value_of(trial, axis.label)),
            "s": "best" if trial.number == best else "trial",
        }
        for trial in shown
        for at, height in _heights(trial, parameters, axis, trials)
    ]
    names = [*(one.name for one in parameters), axis.label]
    ends = [_ends(one) for one in parameters]
    values = [value_of(trial, axis.label) for trial in trials]
    shown_ends = sorted((axis.shown(min(values)), axis.shown(max(values))))
    ends.append((number(shown_ends[0]), number(shown_ends[1])))
    caption = sentence(
        [
            "Each line is a trial, from its values to its score; the thick line is the best trial, and of the others "
            "those of the better half are darker",
            left_out_note(report, parameters),
            thinning_note(len(shown), len(trials)),
            axis.note,
        ]
    )
    alt = f"{len(shown)} trials as lines over {', '.join(names)}. The table of trials holds the same numbers."
    return Figure(
        name=name,
        title=title,
        caption=caption,
        panels=(Panel(title="", spec=chart(look, _parallel_layers(rows, names, ends, look)), alt=alt),),
    )


def _parallel_layers(
    rows: Sequence[dict[str, Any]], names: Sequence[str], ends: Sequence[tuple[str, str]], look: Look
) -> list[Spec]:
    marks = [
        {"a": at, "lo": 0, "hi": 1, "low": low, "high": high, "name": _short_name(name), "full": name}
        for at, (name, (low, high)) in enumerate(zip(names, ends, strict=True))
    ]
    x = {
        "field": "a",
        "type": "quantitative",
        "axis": None,
        "scale": {"domain": [-0.35, len(names) - 0.65], "nice": False, "zero": False},
    }
    y = {"type": "quantitative", "axis": None, "scale": {"domain": [-0.16, 1.16], "nice": False}}
    others = [row for row in rows if row["s"] != "best"]
    best = [row for row in rows if row["s"] == "best"]
    limit = max(50, WIDE // max(1, len(names)) - 6)
    lines = {
        "x": x,
        "y": {**y, "field": "h"},
        "detail": {"field": "n"},
        "tooltip": tooltip(n="trial", v="score"),
    }
    return [
        layer(
            others,
            {"type": "line", "strokeWidth": 1},
            **lines,
            color={
                "condition": {"test": "datum.r <= 0.5", "value": look.tied},
                "value": look.trial,
            },
            opacity={"condition": {"test": "datum.r <= 0.5", "value": 0.5}, "value": 0.25},
        ),
        layer(
            best,
            {
                "type": "line",
                "strokeWidth": 3,
                "color": look.best,
                "point": {"color": look.best, "filled": True},
            },
            **lines,
        ),
        layer(marks, {"type": "rule", "color": look.muted}, x=x, y={**y, "field": "lo"}, y2={"field": "hi"}),
        *(
            layer(
                marks,
                {"type": "text", "dy": dy, "limit": limit, "color": colour, "fontWeight": weight},
                x=x,
                y={**y, "field": at},
                text={"field": field, "type": "nominal"},
                tooltip=tooltip(full=""),
            )
            for at, field, dy, colour, weight in (
                ("lo", "low", 12, look.muted, "normal"),
                ("hi", "high", -10, look.muted, "normal"),
                ("hi", "name", -25, look.ink, "bold"),
            )
        ),
    ]


def _short_name(name: str) -> str:
    return name.rpartition("/")[2] if "/" in name else name.rpartition(".")[2]


def _ends(one: ParameterView) -> tuple[str, str]:
    if one.kind == "choice":
        return one.options[0], one.options[-1]
    return number(one.low), number(one.high)


def _heights(
    trial: TrialView, parameters: Sequence[ParameterView], axis: ScoreAxis, trials: Sequence[TrialView]
) -> list[tuple[int, float]]:
    """The height of a trial on each axis, 0 to 1; an axis whose value it does not have is left out."""
    found = [
        (at, height)
        for at, one in enumerate(parameters)
        if (height := _height(one, trial.params.get(one.name))) is not None
    ]
    values = [axis.shown(value_of(other, axis.label)) for other in trials]
    low, high = min(values), max(values)
    score = (axis.shown(value_of(trial, axis.label)) - low) / (high - low) if high > low else 0.5
    return [*found, (len(parameters), round(score, 4))]


def _height(one: ParameterView, value: Value) -> float | None:
    if value is None and one.kind == "number":
        return None
    if one.kind == "choice":
        text = option_text(value)
        if text not in one.options:
            return None
        return one.options.index(text) / max(1, len(one.options) - 1) if len(one.options) > 1 else 0.5
    if isinstance(value, bool) or not isinstance(value, (int, float)) or one.low is None or one.high is None:
        return None
    low, high, at = (math.log(x) if one.log else x for x in (one.low, one.high, value))
    return round(min(1.0, max(0.0, (at - low) / (high - low))), 4) if high > low else 0.5

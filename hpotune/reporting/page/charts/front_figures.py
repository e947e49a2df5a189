"""Figures of several objectives: the Pareto front with its uncertain trials marked, and the hypervolume over trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from hpotune.reporting.format import number, point
from hpotune.reporting.page.charts.figure import Figure, Panel, missing, sentence
from hpotune.reporting.page.charts.look import (
    PANEL_HIGH,
    PANEL_WIDE,
    Look,
    Spec,
    chart,
    layer,
    number_axis,
    tooltip,
)
from hpotune.reporting.page.charts.trial_points import (
    ScoreAxis,
    drawn,
    score_axis,
    scored,
    six_digits,
    thinning_note,
    value_of,
)
from hpotune.reporting.paired_difference import Z_95
from hpotune.reporting.views.pareto_front import FrontTrial, Hypervolume
from hpotune.reporting.views.study_report import StudyReport
from hpotune.reporting.views.trial_view import TrialView
from hpotune.reporting.views.trial_view import scored as value_and_error

CERTAIN, UNCERTAIN, CANDIDATE = "on the front", "on the front, uncertain", "may be on the front"
_OTHER, _EXCLUDED, _EDGE, _BASE = "other trial", "violates a limit", "off the axis", "base model"
_SHAPES = {
    CERTAIN: "diamond",
    UNCERTAIN: "diamond",
    CANDIDATE: "circle",
    _OTHER: "circle",
    _EXCLUDED: "square",
    _EDGE: "triangle-down",
    _BASE: "cross",
}
_HOLLOW = (UNCERTAIN, CANDIDATE)
_MOST_NAMED = 30
"""Trials of the front whose numbers are written beside them."""
_NO_SCORE = "no trial has a score yet"


def pareto_front(report: StudyReport, look: Look) -> Figure:
    """A panel for each pair of objectives, with the front, its uncertain trials, and those that may be on it."""
    name, title = "pareto-front", "Pareto front"
    if len(report.best.objectives) < 2:
        return missing(name, title, "the study has one objective")
    first = report.best.objectives[0].label
    trials = scored(report, label=first)
    if not trials:
        return missing(name, title, _NO_SCORE)
    shown = drawn(report, trials)
    axes = [score_axis(report, one) for one in report.best.objectives]
    pairs = list(combinations(axes, 2)) if len(axes) < 4 else [(axes[0], other) for other in axes[1:]]
    alone = len(pairs) == 1
    panels = tuple(
        Panel(
            title="" if alone else f"{one.label} and {other.label}",
            spec=_front_chart(report, shown, one, other, look, alone=alone),
            alt=_front_alt(report, len(trials)),
        )
        for one, other in pairs
    )
    caption = sentence(
        [
            "No other trial is at least as good as one of the front in every objective, and better in one",
            *_uncertainty(report),
            thinning_note(len(shown), len(trials)),
            *dict.fromkeys(axis.note for axis in axes),
        ]
    )
    return Figure(name=name, title=title, caption=caption, panels=panels)


def _uncertainty(report: StudyReport) -> list[str]:
    """What a caption says of trials that are uncertain, and of those that may be on the front."""
    pareto = report.best.pareto
    if pareto is None:
        return []
    if all(kind == "none" for kind in pareto.errors.values()):
        return ["the scores have no standard error, so the front counts as certain"]
    found = [
        "hollow diamonds are on it with a probability below 95 %"
        if any(not one.certain for one in pareto.members)
        else "",
        "hollow circles may be on it, with more than 5 %" if pareto.candidates else "",
    ]
    exact = [label for label, kind in pareto.errors.items() if kind == "none"]
    return [
        "lines are 95 % intervals",
        *found,
        f"without a standard error, and so exact: {', '.join(exact)}" if exact else "",
    ]


def _front_alt(report: StudyReport, trials: int) -> str:
    pareto = report.best.pareto
    members = pareto.members if pareto is not None else ()
    named = ", ".join(_named(one) for one in members[:20]) or ", ".join(
        str(one.number) for one in report.best.front[:20]
    )
    others = [_named(one) for one in pareto.candidates[:20]] if pareto is not None else []
    more = f" May be on it: {', '.join(others)}." if others else ""
    return f"{len(report.best.front)} of {trials} trials are on the front: {named}.{more}"


def _named(one: FrontTrial) -> str:
    return str(one.number) if one.certain else f"{one.number} ({probability_text(one)})"


def probability_text(one: FrontTrial) -> str:
    """The probability that a trial is on the front; empty where the scores have no errors."""
    return "" if one.probability is None else f"{100 * one.probability:.0f} %"


def _front_chart(
    report: StudyReport,
    trials: Sequence[TrialView],
    one: ScoreAxis,
    other: ScoreAxis,
    look: Look,
    *,
    alone: bool,
) -> Spec:
    rows = list(_front_rows(report, trials, one, other))
    # a step leaves a trial in the direction in which the first objective gets worse
    rows.sort(key=lambda row: -row["x"] if one.maximize else row["x"])
    rows = [{**row, "o": at} for at, row in enumerate(rows)]
    members = [row for row in rows if row["s"] in (CERTAIN, UNCERTAIN)]
    x = number_axis("x", f"{one.label} ({'maximize' if one.maximize else 'minimize'})", ticks=5)
    y = number_axis("y", f"{other.label} ({'maximize' if other.maximize else 'minimize'})", ticks=5)
    layers = []
    if alone:  # of three objectives the front is a surface
        layers.append(
            layer(
                members,
                {"type": "line", "color": look.best, "interpolate": "step-after", "strokeWidth": 1.5},
                x=x,
                y=y,
                order={"field": "o", "type": "quantitative"},
            )
        )
    near = [row for row in rows if row["s"] in (CERTAIN, UNCERTAIN, CANDIDATE)]
    bars = {"type": "rule", "color": look.trial, "opacity": 0.6, "clip": True}
    across = [row for row in near if "lo" in row]
    upward = [row for row in near if "low" in row]
    if across:
        layers.append(
            layer(across, bars, x={"field": "lo", "type": "quantitative"}, x2={"field": "hi"}, y={**y})
        )
    if upward:
        layers.append(
            layer(upward, bars, x={**x}, y={"field": "low", "type": "quantitative"}, y2={"field": "high"})
        )
    tips = tooltip(n="trial", x=one.label, y=other.label, q="on the front with", p="at")
    layers.append(
        layer(
            rows,
            {"type": "point", "filled": False, "strokeWidth": 1.6, "opacity": 0.9},
            x=x,
            y=y,
            tooltip=tips,
            **_front_encoding(rows, look),
        )
    )
    if len(members) <= _MOST_NAMED:
        layers.append(
            layer(
                members,
                {"type": "text", "align": "left", "dx": 7, "dy": -7, "color": look.ink},
                x=x,
                y=y,
                text={"field": "n", "type": "nominal"},
            )
        )
    return chart(look, layers) if alone else chart(look, layers, wide=PANEL_WIDE, high=PANEL_HIGH)


def _front_rows(
    report: StudyReport, trials: Sequence[TrialView], one: ScoreAxis, other: ScoreAxis
) -> Iterator[dict[str, Any]]:
    """Trials as rows: n number, x and y as drawn, s series, q probability, lo to hi and low to high: 95 % intervals."""
    pareto = report.best.pareto
    members = {each.number: each for each in pareto.members} if pareto else {}
    candidates = {each.number: each for each in pareto.candidates} if pareto else {}
    on_front = members.keys() | {trial.number for trial in report.best.front}
    base = report.best.baseline
    shown = [*trials, *([base] if base is not None and base.values else [])]
    for trial in shown:
        x, y = value_of(trial, one.label), value_of(trial, other.label)
        found = members.get(trial.number) or candidates.get(trial.number)
        series = _BASE if trial.kind == "baseline" else _EXCLUDED if trial.breaks else _OTHER
        if (one.shown(x), other.shown(y)) != (x, y):
            series = _EDGE
        if trial.number in candidates:
            series = CANDIDATE
        if trial.number in on_front:
            series = UNCERTAIN if found is not None and not found.certain else CERTAIN
        row = {
            "n": str(trial.number) if trial.kind == "trial" else "base model",
            "x": six_digits(one.shown(x)),
            "y": six_digits(other.shown(y)),
            "s": series,
            "q": probability_text(found) if found is not None else "",
            "p": point(trial.params),
        }
        yield row | _interval(trial, one, "lo", "hi") | _interval(trial, other, "low", "high")


def _interval(trial: TrialView, axis: ScoreAxis, low: str, high: str) -> dict[str, float]:
    value, error = value_and_error(trial, axis.label)
    if value is None or not error:
        return {}
    return {low: six_digits(value - Z_95 * error), high: six_digits(value + Z_95 * error)}


def _front_encoding(rows: Sequence[Mapping[str, Any]], look: Look) -> dict[str, Spec]:
    """Colour, filling and shape by the field `s`, for the series that occur."""
    used = {row["s"] for row in rows}
    domain = [series for series in _SHAPES if series in used]
    colours = {CERTAIN: look.best, UNCERTAIN: look.best, CANDIDATE: look.tied, _BASE: look.ink}
    strokes = [
        colours.get(series, look.bad if series in (_EXCLUDED, _EDGE) else look.trial) for series in domain
    ]
    fills = [
        "transparent" if series in _HOLLOW else colour for series, colour in zip(domain, strokes, strict=True)
    ]
    by_series: Spec = {"field": "s", "type": "nominal", "legend": {"columns": 3}}  # a phone shows three
    return {
        "stroke": {**by_series, "scale": {"domain": domain, "range": strokes}},
        "fill": {**by_series, "scale": {"domain": domain, "range": fills}},
        "shape": {**by_series, "scale": {"domain": domain, "range": [_SHAPES[one] for one in domain]}},
        "size": {
            "condition": {"test": f"datum.s == '{CERTAIN}' || datum.s == '{UNCERTAIN}'", "value": 90},
            "value": 34,
        },
    }


def hypervolume(report: StudyReport, look: Look) -> Figure:
    """The hypervolume of the Pareto front, by finished trials and by time."""
    name, title = "hypervolume", "Hypervolume of the Pareto front"
    if len(report.best.objectives) < 2:
        return missing(name, title, "the study has one objective")
    found = report.best.pareto.hypervolume if report.best.pareto is not None else None
    if found is None or not found.steps:
        return missing(name, title, _NO_SCORE)
    reference = ", ".join(f"{label} {number(value)}" for label, value in found.reference.items())
    caption = sentence(
        [
            "The volume of the objectives' space that the front dominates, in the product of their units",
            f"its reference point ({reference}) follows from the present front, so that values of two reports can be "
            "compared only where it is the same",
        ]
    )
    last = found.steps[-1]
    alt = (
        f"It rose {len(found.steps)} times over {found.finished} trials, at last with trial {last.number} to "
        f"{number(last.value)}."
    )
    panels = [
        Panel(title=heading, spec=_volume_chart(rows, axis, look, heading), alt=alt)
        for heading, axis, rows in _volume_rows(report, found)
    ]
    return Figure(name=name, title=title, caption=caption, panels=tuple(panels))


def _volume_rows(report: StudyReport, found: Hypervolume) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Heading, title of the axis and rows of each panel: x trials or hours, y hypervolume, n trial."""
    rows = [{"x": one.finished, "y": six_digits(one.value), "n": str(one.number)} for one in found.steps]
    none = {"x": 0, "y": 0.0, "n": ""}
    yield "by trials", "finished trials", _extended([none, *rows], found.finished)
    starts = [trial.start for trial in report.trials if trial.start is not None]
    ends = [trial.end for trial in report.trials if trial.end is not None and trial.values]
    if starts and ends and all(one.end is not None for one in found.steps):
        begin = min(starts)
        hours = [
            {**row, "x": _hours((one.end or begin) - begin)}
            for row, one in zip(rows, found.steps, strict=True)
        ]
        yield (
            "over time",
            "hours since the first trial started",
            _extended([none, *hours], _hours(max(ends) - begin)),
        )


def _hours(seconds: float) -> float:
    return round(seconds / 3600, 4)


def _extended(rows: Sequence[Mapping[str, Any]], end: float) -> list[dict[str, Any]]:
    """The rows, and the last value again at the end."""
    found = [dict(row) for row in rows]
    return [*found, {**found[-1], "x": end}] if found[-1]["x"] < end else found


def _volume_chart(rows: Sequence[Mapping[str, Any]], axis: str, look: Look, heading: str) -> Spec:
    x = number_axis("x", axis, grid=False, ticks=5)
    y: Spec = {"field": "y", "type": "quantitative", "title": "hypervolume", "axis": {"tickCount": 5}}
    layers = [
        layer(
            rows,
            {"type": "line", "interpolate": "step-after", "color": look.best, "strokeWidth": 2},
            x=x,
            y=y,
        ),
        layer(
            [row for at, row in enumerate(rows) if at and row["n"] != rows[at - 1]["n"]],
            {"type": "point", "color": look.best, "size": 36},
            x=x,
            y=y,
            tooltip=tooltip(n="trial", x=axis, y="hypervolume"),
        ),
    ]
    return chart(look, layers, wide=PANEL_WIDE, high=PANEL_HIGH, title=heading)

"""The figure of the repeats: each finalist's scores with new seeds, their mean, and what the search had measured."""

from __future__ import annotations

from typing import Any

from hpotune.reporting.format import interval, number
from hpotune.reporting.page.charts.figure import Figure, Panel, missing, sentence
from hpotune.reporting.page.charts.look import PANEL_WIDE, Look, Spec, chart, interval_rules, layer, tooltip
from hpotune.reporting.views.repeats import RepeatedTrial, RepeatsResult
from hpotune.reporting.views.study_report import StudyReport


def repeats(report: StudyReport, look: Look) -> Figure:
    """A row for each finalist: a dot for each new seed, the mean with its 95 % interval, a cross for the search."""
    name, title = "repeats", "Finalists with new seeds"
    result = report.best.repeats
    if result is None:
        return missing(name, title, "the study has no repeats (`search.repeats`)")
    shown = [one for one in result.trials if one.values]
    if not shown:
        return missing(name, title, "no repeat has finished yet")
    caption = sentence(
        [
            "A dot is a training with a new seed; the diamond is their mean, with the 95 % interval of the expected "
            "score, corrected for the choice"
            if any(one.expected is not None for one in shown)
            else "A dot is a training with a new seed; the diamond is their mean",
            "a cross is the score in the search, which chose the finalist and has no part in the mean",
            "the first finalist is the best of the search",
        ]
    )
    return Figure(name=name, title=title, caption=caption, panels=(_panel(result, shown, look),))


def _panel(result: RepeatsResult, shown: list[RepeatedTrial], look: Look) -> Panel:
    means = [_row(result, one) for one in shown]
    y: Spec = {"field": "t", "type": "nominal", "sort": None, "title": None}
    x: Spec = {
        "field": "v",
        "type": "quantitative",
        "title": result.label,
        "scale": {"zero": False},
        "axis": {"tickCount": 4, "format": "~g"},
    }
    seeds = [{"t": _name(one), "v": value, "k": "new seed"} for one in shown for value in one.values]
    search = [{"t": _name(one), "v": one.search_value, "k": "search"} for one in shown]
    layers = [
        interval_rules(look, means, y=y),
        layer(
            search,
            {"type": "point", "shape": "cross", "size": 60, "color": look.base},
            y=y,
            x=x,
            tooltip=tooltip(t="", v="score", k="of"),
        ),
        layer(
            seeds,
            {"type": "point", "size": 40, "color": look.tied, "filled": True},
            y=y,
            x=x,
            tooltip=tooltip(t="", v="score", k="of"),
        ),
        layer(
            means,
            {"type": "point", "shape": "diamond", "size": 110},
            y=y,
            x=x,
            color={"condition": {"test": "datum.s == 'best'", "value": look.best}, "value": look.trial},
            tooltip=tooltip(t="", v="mean of new seeds", i="95 % interval", s=""),
        ),
    ]
    alt = "; ".join(
        f"{row['t']} mean {row['v']:g} ({row['i'] or 'no interval'}, {row['s']})" for row in means
    )
    return Panel(
        title=result.label,
        spec=chart(look, layers, wide=PANEL_WIDE, high=70 + 30 * len(shown), title=result.label),
        alt=f"{result.label} of each finalist with new seeds: {alt}.",
    )


def _name(one: RepeatedTrial) -> str:
    return f"trial {one.number}"


def _row(result: RepeatsResult, one: RepeatedTrial) -> dict[str, Any]:
    """A finalist: t name, v mean, lo and hi ends of its interval, i the interval as text, s what it is."""
    may = "may be the best" if one.may_be_best else "behind the best" if one.error else "not compared"
    row: dict[str, Any] = {
        "t": _name(one),
        "v": float(number(one.mean)),
        "i": "",
        "s": "best" if one.number == result.winner else may,
    }
    if one.expected is None:
        return row
    _, low, high = interval(one.expected.value, one.expected.low, one.expected.high)
    return row | {"lo": one.expected.low, "hi": one.expected.high, "i": f"{low} to {high}"}

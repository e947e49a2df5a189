"""The figure of the sealed test: how much each finalist differs from the base model on each of its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpotune.reporting.format import interval, number
from hpotune.reporting.page.charts.figure import Figure, Panel, missing, sentence
from hpotune.reporting.page.charts.look import PANEL_WIDE, Look, Spec, chart, interval_rules, layer, tooltip
from hpotune.reporting.page.charts.trial_points import six_digits
from hpotune.reporting.views.sealed_test import SealedDifference
from hpotune.reporting.views.study_report import StudyReport


def sealed_test(report: StudyReport, look: Look) -> Figure:
    """A panel for each task: the difference of each finalist to the base model with its simultaneous interval."""
    name, title = "sealed-test", "Difference to the base model on the sealed test"
    result = report.sealed
    if result is None:
        tasks = ", ".join(report.setup.sealed_tasks)
        reason = f"{tasks}: not opened yet (`hpotune test`)" if tasks else "the study has no sealed test"
        return missing(name, title, reason)
    if not result.differences:
        return missing(name, title, "no finalist was scored beside the base model yet")
    labels = list(dict.fromkeys(one.label for one in result.differences))
    panels = tuple(
        _panel(task, [one for one in result.differences if one.label == task], look) for task in labels
    )
    caption = sentence(
        [
            "To the right a finalist is better than the base model; lines are 95 % intervals that hold together for "
            "all finalists and tasks"
            if any(one.low is not None for one in result.differences)
            else "The tasks have no standard error",
            "the first one is the best of the search",
        ]
    )
    return Figure(name=name, title=title, caption=caption, panels=panels)


def _panel(task: str, found: Sequence[SealedDifference], look: Look) -> Panel:
    rows = [_row(one) for one in found]
    y: Spec = {"field": "t", "type": "nominal", "sort": None, "title": None}
    x: Spec = {
        "field": "d",
        "type": "quantitative",
        "title": "gain over the base model",
        "axis": {"tickCount": 4, "format": "~g"},
    }
    layers = [
        layer([{"d": 0}], {"type": "rule", "color": look.base, "strokeDash": [5, 4]}, x=x),
        interval_rules(look, rows, y=y),
        layer(
            rows,
            {"type": "point", "size": 70},
            y=y,
            x=x,
            color={
                "condition": {"test": "datum.s == 'significant'", "value": look.best},
                "value": look.tied,
            },
            tooltip=tooltip(t="", d="difference", i="95 % interval", p="p (Holm)", s=""),
        ),
    ]
    alt = "; ".join(f"{row['t']} {row['d']:+g} ({row['i'] or 'no interval'}, {row['s']})" for row in rows)
    return Panel(
        title=task,
        spec=chart(look, layers, wide=PANEL_WIDE, high=70 + 26 * len(rows), title=task),
        alt=f"Difference to the base model on {task}: {alt}.",
    )


def _row(one: SealedDifference) -> dict[str, Any]:
    """A finalist: t name, d difference, lo and hi ends of its interval, i the interval, p and s as text."""
    row = {
        "t": f"trial {one.number}",
        "d": six_digits(one.value),
        "i": "",
        "p": number(one.p_value),
        "s": "significant" if one.significant else "not significant",
    }
    if one.low is None or one.high is None:
        return row
    _, low, high = interval(one.value, one.low, one.high)
    return row | {"lo": six_digits(one.low), "hi": six_digits(one.high), "i": f"{low} to {high}"}

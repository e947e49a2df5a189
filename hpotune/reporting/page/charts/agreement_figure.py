"""Figures of the objective beside other scores: recorded ones of all trials, and the sealed test of the finalists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpotune.config.metrics import known_sense
from hpotune.reporting.format import number
from hpotune.reporting.page.charts.figure import Figure, Panel, missing
from hpotune.reporting.page.charts.look import (
    PANEL_HIGH,
    PANEL_WIDE,
    Look,
    chart,
    layer,
    number_axis,
    series_encoding,
    tooltip,
)
from hpotune.reporting.page.charts.trial_points import drawn, series_of, used_series
from hpotune.reporting.paired_difference import Z_95
from hpotune.reporting.views.score_agreement import ScoreAgreement
from hpotune.reporting.views.study_report import StudyReport
from hpotune.reporting.views.trial_view import scored as value_and_error

_POINT = {"type": "point"}


def validation_against_test(report: StudyReport, look: Look) -> Figure:
    """The objective against each other score of the same trials, and against the sealed test of the finalists."""
    name, title = "validation-against-test", "Objective against other scores"
    panels = [_agreement_panel(report, one, look) for one in report.agreements]
    panels += _sealed_panels(report, look)
    if not panels:
        return missing(
            name,
            title,
            "fewer than two trials have a second score; score.record and score.objective add some",
        )
    caption = (
        "Each point is a trial. A correlation over all trials can come from those that diverged alone; what matters "
        "for the choice is the agreement among the better half."
    )
    return Figure(name=name, title=title, caption=caption, panels=tuple(panels))


def _agreement_panel(report: StudyReport, one: ScoreAgreement, look: Look) -> Panel:
    by_number = {trial.number: trial for trial in report.trials}
    shown = drawn(
        report, [by_number[pair.number] for pair in one.pairs if pair.number in by_number], most=400
    )
    kept = {trial.number: series_of(report, trial) for trial in shown}
    rows = [
        {"n": pair.number, "x": pair.objective, "y": pair.other, "s": kept[pair.number]}
        for pair in one.pairs
        if pair.number in kept
    ]
    layers = [
        layer(
            rows,
            _POINT,
            x=number_axis("x", one.objective, ticks=5),
            y=number_axis("y", directed(one.other), ticks=5),
            tooltip=tooltip(n="trial", x=one.objective, y=one.other),
            **series_encoding(look, used_series(rows), legend=False),
        )
    ]
    alt = f"{len(one.pairs)} trials: {agreement_text(one)}."
    return Panel(
        title=agreement_text(one),
        spec=chart(look, layers, wide=PANEL_WIDE, high=PANEL_HIGH, title=agreement_text(one)),
        alt=alt,
    )


def _sealed_panels(report: StudyReport, look: Look) -> list[Panel]:
    """A panel for each task of the sealed test: the base model and the finalists, with 95 % intervals."""
    result, label = report.sealed, report.best.ranked_by.label
    if result is None:
        return []
    chosen = {trial.number: trial for trial in report.trials}
    rows: dict[str, list[dict[str, Any]]] = {}
    for one in result.tested:
        trial = report.best.baseline if one.number is None else chosen.get(one.number)
        x = value_and_error(trial, label)[0] if trial is not None else None
        if x is None:
            continue
        for found in one.scores:
            error = (found.stderr or 0.0) * Z_95
            row = {
                "n": one.name,
                "x": x,
                "y": found.value,
                "lo": found.value - error,
                "hi": found.value + error,
            }
            rows.setdefault(found.label, []).append(row)
    return [_sealed_panel(name, label, found, look) for name, found in rows.items()]


def _sealed_panel(name: str, label: str, rows: Sequence[dict[str, Any]], look: Look) -> Panel:
    x, title = number_axis("x", label, ticks=5), "sealed test, with 95 % intervals"
    layers = [
        layer(
            rows,
            {"type": "rule", "color": look.trial},
            x=x,
            y={"field": "lo", "type": "quantitative"},
            y2={"field": "hi"},
        ),
        layer(
            rows,
            {**_POINT, "color": look.tied, "size": 60},
            x=x,
            y=number_axis("y", name, ticks=5),
            tooltip=tooltip(n="", x=label, y=name),
        ),
        layer(
            rows,
            {"type": "text", "align": "left", "dx": 7, "color": look.ink},
            x=x,
            y={"field": "y", "type": "quantitative"},
            text={"field": "n", "type": "nominal"},
        ),
    ]
    alt = "; ".join(f"{row['n']} {number(row['y'])}" for row in rows)
    spec = chart(look, layers, wide=PANEL_WIDE, high=PANEL_HIGH, title=title)
    return Panel(title=title, spec=spec, alt=f"{name} in the sealed test: {alt}.")


def directed(label: str) -> str:
    """The label, with the direction of a number of which less is better."""
    sense = known_sense(label.rpartition("/")[2])
    return f"{label} (lower is better)" if sense == "minimize" else label


def agreement_text(one: ScoreAgreement) -> str:
    """Correlations in words; that of ranks, as the choice of a trial depends on the order only."""
    if one.spearman is None:
        return f"{len(one.pairs)} trials, too few for a correlation"
    good = "" if one.spearman_good is None else f", {one.spearman_good:.2f} among the better {one.good}"
    return f"rank correlation {one.spearman:.2f}{good}"

"""Figures of time and cost: what jobs did and when, and what the hours were used for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hpotune.records.trial import Span
from hpotune.reporting.format import length, share_text, short
from hpotune.reporting.gantt import LOOK, kind
from hpotune.reporting.gantt import rows as gantt_rows
from hpotune.reporting.page.charts.figure import Figure, Panel, missing, sentence
from hpotune.reporting.page.charts.look import Look, chart, layer, tooltip
from hpotune.reporting.views.cost_view import HoursUsed
from hpotune.reporting.views.study_report import StudyReport

MOST_BARS = 1200
"""Bars of the gantt chart; neighbours of one kind are joined until there are no more."""


def gantt(report: StudyReport, look: Look) -> Figure:
    """A row for each job with what it did."""
    name, title = "gantt", "What the jobs did"
    if not report.spans:
        return missing(name, title, "no job has recorded what it did yet")
    begin, end = min(s.start for s in report.spans), max(s.end for s in report.spans)
    unit_s, unit = next(
        (size, word) for size, word in ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))
        if end - begin >= 2 * size or size == 1
    )  # fmt: skip
    found = gantt_rows(report.spans)
    bars, joined = _bars([(row.label, row.spans) for row in found], end - begin)
    rows = [
        {**bar, "a": round((bar["a"] - begin) / unit_s, 4), "b": round((bar["b"] - begin) / unit_s, 4)}
        for bar in bars
    ]
    meanings = [
        (LOOK[one][2], look.bands[at])
        for at, one in enumerate(LOOK)
        if any(bar["k"] == LOOK[one][2] for bar in bars)
    ]
    layers = [
        layer(
            rows,
            {"type": "bar", "stroke": look.background or "var(--page)", "strokeWidth": 0.6},
            y={"field": "j", "type": "nominal", "sort": None, "title": None},
            x={"field": "a", "type": "quantitative", "title": f"{unit} since the first submission"},
            x2={"field": "b"},
            color={
                "field": "k",
                "type": "nominal",
                "scale": {
                    "domain": [one for one, _ in meanings],
                    "range": [colour for _, colour in meanings],
                },
            },
            tooltip=tooltip(j="job", k="", t="trial", d="took"),
        )
    ]
    caption = sentence(
        [
            f"{len({span.job for span in report.spans})} jobs over {length(end - begin)}",
            "Jobs that do not overlap share a row" if found and found[0].label.startswith("slot ") else "",
            "Neighbouring spans are joined" if joined else "",
        ]
    )
    alt = f"Jobs over {length(end - begin)}; the table of hours below says what they were used for."
    panel = Panel(title="", spec=chart(look, layers, high=max(110, 20 * len(found) + 50)), alt=alt)
    return Figure(name=name, title=title, caption=caption, panels=(panel,))


def _bars(found: Sequence[tuple[str, Sequence[Span]]], whole_s: float) -> tuple[list[dict[str, Any]], bool]:
    """The bars of all rows, and whether neighbours were joined: across ever larger gaps, until few enough are left."""
    gap_s, joined = 0.0, False
    while True:
        bars = [bar for label, spans in found for bar in _joined(label, spans, gap_s)]
        if len(bars) <= MOST_BARS:
            return bars, joined
        gap_s, joined = max(2 * gap_s, whole_s / 2000), True


def _joined(label: str, spans: Sequence[Span], gap_s: float) -> Iterator[dict[str, Any]]:
    """The bars of a row. Neighbours within the gap become one bar, of the kind that fills most of it."""
    ordered = sorted(spans, key=lambda span: span.start)
    group: list[Span] = []
    for span in ordered:
        if group and (gap_s == 0 or not _fits(group, span, gap_s)):
            yield _bar(label, group)
            group = []
        group.append(span)
    if group:
        yield _bar(label, group)


def _fits(group: Sequence[Span], span: Span, gap_s: float) -> bool:
    same = kind(group[-1]) == kind(span)
    small = span.end - group[0].start <= gap_s
    return (same and span.start - group[-1].end <= gap_s) or small


def _bar(label: str, group: Sequence[Span]) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    for span in group:
        seconds[kind(span)] = seconds.get(kind(span), 0.0) + span.end - span.start
    trials = list(dict.fromkeys(span.trial for span in group if span.trial is not None))
    start, end = group[0].start, max(span.end for span in group)
    named = "" if not trials else str(trials[0]) if len(trials) == 1 else f"{len(trials)} trials"
    main = max(seconds, key=lambda one: seconds[one])
    return {
        "j": label,
        "a": start,
        "b": end,
        "k": LOOK[main][2],
        "t": named,
        "d": length(max(0.0, end - start)),
    }


_USES = {
    "finished": "trials with a score",
    "pruned": "pruned trials",
    "baseline": "base model",
    "running": "running trials",
    "failed": "lost: failed",
    "interrupted": "lost: interrupted",
    "start": "lost: jobs starting",
    "idle": "lost: waiting for other trials",
}


def use_text(one: HoursUsed) -> str:
    """A use of hours in words, with its cause."""
    return f"{_USES[one.use]} ({one.cause})" if one.cause else _USES[one.use]


def hours_by_use(report: StudyReport, look: Look) -> Figure:
    """The hours of the study by their use, those that were lost apart."""
    cost = report.cost
    name, title = "hours", f"{cost.unit[0].upper()}{cost.unit[1:]} by use"
    if not cost.total:
        return missing(name, title, "no trial has run yet")
    rows = [
        {
            "u": use_text(one),
            "h": float(f"{one.hours:.4g}"),
            "s": "lost" if one.lost else "used",
            "p": f"{one.hours / cost.total:.1%}",
        }
        for one in cost.uses
    ]
    layers = [
        layer(
            rows,
            {"type": "bar", "height": {"band": 0.65}},
            y={"field": "u", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 220}},
            x={"field": "h", "type": "quantitative", "title": cost.unit, "axis": {"tickCount": 6}},
            color={
                "field": "s",
                "type": "nominal",
                "scale": {"domain": ["used", "lost"], "range": [look.tied, look.bad]},
            },
            tooltip=tooltip(u="", h=cost.unit, p="share"),
        )
    ]
    caption = sentence(
        [
            f"{short(cost.lost)} of {short(cost.total)} {cost.unit} gave no score "
            f"({share_text(cost.lost / cost.total)})"
        ]
    )
    panel = Panel(title="", spec=chart(look, layers, high=max(90, 28 * len(rows) + 60)), alt=caption)
    return Figure(name=name, title=title, caption=caption, panels=(panel,))

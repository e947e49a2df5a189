"""Colours, fonts and parts that all figures share, as Vega-Lite expects them.

On the page colours are CSS variables, so that one SVG fits a light and a dark page; in files they are plain colours.
Source of the colours: Okabe and Ito 2008, distinct for colour-blind readers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Spec = dict[str, Any]
"""A Vega-Lite specification or a part of one."""
Series = Literal["best", "may be the best", "other trial", "pruned", "excluded", "off the axis"]
SERIES: tuple[Series, ...] = ("best", "may be the best", "other trial", "pruned", "excluded", "off the axis")
SHAPES: Mapping[Series, str] = {
    "best": "diamond",
    "may be the best": "circle",
    "other trial": "circle",
    "pruned": "cross",
    "excluded": "square",
    "off the axis": "triangle-down",
}
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
WIDE, HIGH = 720, 300
"""Pixels of a figure with one panel."""
PANEL_WIDE, PANEL_HIGH = 330, 230
"""Pixels of each of several panels."""
EDGE = 6
"""Pixels between the outermost points and the ends of an axis without limits of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """The colours of a figure."""

    background: str | None
    ink: str
    muted: str
    line: str
    best: str
    tied: str
    trial: str
    pruned: str
    base: str
    bad: str
    bands: tuple[str, ...]
    """Of kinds of spans and uses, in the order of report/gantt.py."""

    def of(self, series: Series) -> str:
        """The colour of a series of trials."""
        colours = {"best": self.best, "may be the best": self.tied, "other trial": self.trial}
        return {**colours, "pruned": self.pruned, "excluded": self.bad}.get(series, self.bad)


PAPER = Look(
    background="#ffffff", ink="#1b1f24", muted="#4d5560", line="#d9dde2", best="#c8500a", tied="#0072b2",
    trial="#7a8694", pruned="#a6adb6", base="#1b1f24", bad="#b3261e",
    bands=("#b9bfc7", "#e69f00", "#c9b400", "#0072b2", "#d55e00"),
)  # fmt: skip
PAGE = Look(
    background=None, ink="var(--ink)", muted="var(--muted)", line="var(--line)", best="var(--best)",
    tied="var(--tied)", trial="var(--trial)", pruned="var(--pruned)", base="var(--ink)", bad="var(--bad)",
    bands=("var(--queue)", "var(--start)", "var(--load)", "var(--tied)", "var(--idle)"),
)  # fmt: skip


def config(look: Look) -> Spec:
    """The configuration that a specification ends with."""
    text = {"labelColor": look.muted, "titleColor": look.ink, "labelFontSize": 11, "titleFontSize": 12}
    return {
        "aria": False,
        "background": look.background,
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            **text,
            "titleFontWeight": "normal",
            "gridColor": look.line,
            "domainColor": look.muted,
            "tickColor": look.muted,
            "labelOverlap": "greedy",
            "labelSeparation": 5,
            "labelLimit": 130,
            "titleLimit": 300,
        },
        "legend": {**text, "orient": "top", "title": None, "labelLimit": 220, "symbolSize": 60},
        "title": {"color": look.ink, "fontSize": 12, "fontWeight": "bold", "anchor": "start", "limit": 330},
        "header": {"labelColor": look.ink},
        "text": {"color": look.ink, "fontSize": 11},
        "point": {"filled": True, "opacity": 0.85},
        "rule": {"color": look.muted},
    }


def chart(
    look: Look, layers: Sequence[Spec], *, wide: int = WIDE, high: int = HIGH, title: str | None = None
) -> Spec:
    """One panel of these layers."""
    spec: Spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": wide,
        "height": high,
        "autosize": {"type": "fit", "contains": "padding"},
        "layer": list(layers),
        "config": config(look),
    }
    return spec | ({"title": title} if title else {})


def layer(values: Sequence[Mapping[str, Any]], mark: Mapping[str, Any], **encoding: object) -> Spec:
    """A layer with its own rows."""
    return {"data": {"values": list(values)}, "mark": dict(mark), "encoding": encoding}


def interval_rules(look: Look, rows: Sequence[Mapping[str, Any]], *, y: Spec) -> Spec:
    """The intervals of the rows that have one, from `lo` to `hi`."""
    return layer(
        [row for row in rows if "lo" in row],
        {"type": "rule", "color": look.trial, "strokeWidth": 2},
        y=y,
        x={"field": "lo", "type": "quantitative"},
        x2={"field": "hi"},
    )


def number_axis(
    field: str,
    title: str | None,
    *,
    log: bool = False,
    domain: Sequence[float] | None = None,
    ticks: int = 6,
    grid: bool = True,
) -> Spec:
    """The encoding of a number on an axis that need not begin at zero."""
    scale: Spec = {"type": "log"} if log else {"zero": False}
    if domain is None:
        scale |= {"padding": EDGE, "nice": False}
    if domain is not None:
        scale |= {"domain": list(domain), "nice": False}
    axis: Spec = {"tickCount": ticks, "grid": grid}
    if log:
        axis |= {"format": ".0e" if _many_decades(domain) else "~g"} | _decades(domain)
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def _many_decades(domain: Sequence[float] | None) -> bool:
    return domain is None or not 0.001 <= domain[0] <= domain[1] <= 1e5


def _decades(domain: Sequence[float] | None) -> Spec:
    """Ticks at the powers of ten, where there are three or more: Vega draws a line at every digit."""
    if domain is None or domain[0] <= 0:
        return {}
    first, last = math.ceil(math.log10(domain[0]) - 1e-9), math.floor(math.log10(domain[1]) + 1e-9)
    return {"values": [10.0**at for at in range(first, last + 1)]} if last - first >= 2 else {}


def series_encoding(look: Look, used: Sequence[Series], *, legend: bool = True) -> dict[str, Spec]:
    """Colour and shape by the field `s`, for the series that occur."""
    domain = [one for one in SERIES if one in used]
    shown: Spec = {} if legend else {"legend": None}
    return {
        "color": {
            "field": "s",
            "type": "nominal",
            "scale": {"domain": domain, "range": [look.of(one) for one in domain]},
            **shown,
        },
        "shape": {
            "field": "s",
            "type": "nominal",
            "scale": {"domain": domain, "range": [SHAPES[one] for one in domain]},
            **shown,
        },
        "size": {"condition": {"test": "datum.s == 'best'", "value": 110}, "value": 34},
    }


def tooltip(**titles: str) -> list[Spec]:
    """What is shown beside the pointer: fields with their titles."""
    return [{"field": field, "title": title} for field, title in titles.items()]

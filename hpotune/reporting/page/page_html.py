"""The report as one HTML file: text, tables and figures as SVG, which a script makes interactive.

Nothing is loaded: the Content-Security-Policy forbids every request, and lets only the page's own two scripts run,
which it names by their hashes. So text of the study that would be markup could neither run nor load anything, even if
it were not escaped.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpotune.reporting.page.answers import answers, repeats_sentences, subject, summary
from hpotune.reporting.page.charts.figure import Figure, Panel
from hpotune.reporting.page.charts.figure_list import FIGURES
from hpotune.reporting.page.charts.look import PAGE, WIDE, Spec
from hpotune.reporting.page.drawing import inline_svg, shown_spec
from hpotune.reporting.page.page_parts import content_policy, page_style, rendered, sortable_script
from hpotune.reporting.page.page_tables import report_tables
from hpotune.reporting.views.study_report import StudyReport

HERE = Path(__file__).parent
_ZOOMED = {
    "score-over-trials": ("x", "y"),
    "pareto-front": ("x", "y"),
    "learning-curves": ("x", "y"),
    "gantt": ("x",),
}
"""Figures with one panel that are zoomed, and their axes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A panel as the template prints it."""

    id: str
    title: str
    alt: str
    svg: str
    wide: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnFigure:
    """A figure as the template prints it."""

    name: str
    title: str
    caption: str
    why_not: str
    zoomed: bool
    panels: tuple[Drawn, ...]


def html_page(report: StudyReport) -> str:
    """The page."""
    figures = [draw(report, PAGE) for draw in FIGURES.values()]
    library, script, style = vega_bundle(), sortable_script() + _own("page.js"), page_style()
    return rendered(
        _own("page.html.jinja"),
        report=report,
        subject=subject(report),
        summary=summary(report),
        answers=answers(report),
        figures={figure.name: _drawn(figure) for figure in figures},
        tables=report_tables(report),
        repeats=repeats_sentences(report),
        policy=content_policy(library, script),
        style=style,
        library=library,
        script=script,
        specs=_as_script(_interactive(figures)),
    )


def _own(name: str) -> str:
    """A file beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


def vega_bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script (scripts/make-vega-bundle takes it out of vl-convert)."""
    return gzip.decompress((HERE / "vega_bundle.js.gz").read_bytes()).decode()


def _as_script(value: Mapping[str, object]) -> str:
    """JSON that is safe within a script element: no end of the element, no comment."""
    text = json.dumps(shown_spec(value), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _drawn(figure: Figure) -> DrawnFigure:
    wide = len(figure.panels) == 1 and figure.panels[0].spec["width"] >= WIDE
    return DrawnFigure(
        name=figure.name,
        title=figure.title,
        caption=figure.caption,
        why_not=figure.why_not,
        zoomed=figure.name in _ZOOMED and len(figure.panels) == 1,
        panels=tuple(
            Drawn(
                id=_id(figure, at),
                title=str(panel.spec.get("title", "")),
                alt=panel.alt,
                svg=inline_svg(_untitled(panel.spec)),
                wide=wide,
            )
            for at, panel in enumerate(figure.panels)
        ),
    )


def _id(figure: Figure, at: int) -> str:
    return f"{figure.name}-{at}"


def _interactive(figures: list[Figure]) -> dict[str, Spec]:
    """The specification of each panel by its id, as wide as the page gives it."""
    return {
        _id(figure, at): _untitled(_zoomable(figure, panel)) | {"width": "container"}
        for figure in figures
        for at, panel in enumerate(figure.panels)
    }


def _untitled(spec: Spec) -> Spec:
    """The specification without its title, which the page prints as a heading."""
    return {key: value for key, value in spec.items() if key != "title"}


def _zoomable(figure: Figure, panel: Panel) -> Spec:
    """The specification, with Ctrl and the wheel to zoom where the figure is one panel of numbers."""
    axes = _ZOOMED.get(figure.name)
    if axes is None or len(figure.panels) > 1:
        return panel.spec
    zoom: Mapping[str, Any] = {
        "name": "zoom",
        "bind": "scales",
        "select": {
            "type": "interval",
            "encodings": list(axes),
            "zoom": "wheel![event.ctrlKey]",
            "translate": "[pointerdown[event.ctrlKey], window:pointerup] > window:pointermove!",
        },
    }
    layers = list(panel.spec["layer"])
    return panel.spec | {"layer": [*layers[:-1], layers[-1] | {"params": [zoom]}]}

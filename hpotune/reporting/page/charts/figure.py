"""A figure: panels, each a Vega-Lite specification, with a title, a caption and a text alternative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpotune.reporting.page.charts.look import Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One chart of a figure."""

    title: str
    spec: Spec
    alt: str
    """What a reader who cannot see it needs to know, in a sentence or two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A figure of the report."""

    name: str
    """As `hpotune plot` takes it."""
    title: str
    caption: str
    panels: tuple[Panel, ...]
    """Empty where the study has nothing to draw in it."""
    why_not: str = ""
    """Why it has no panels; empty where it has."""


def missing(name: str, title: str, why_not: str) -> Figure:
    """A figure that the study has no data for."""
    return Figure(name=name, title=title, caption="", panels=(), why_not=why_not)


def file_spec(figure: Figure, *, columns: int = 2) -> Spec:
    """The whole figure as one specification, for a file."""
    specs = [panel.spec for panel in figure.panels]
    if len(specs) == 1:
        return specs[0]
    inner = [
        {key: value for key, value in spec.items() if key not in ("$schema", "config", "autosize")}
        for spec in specs
    ]
    return {"$schema": specs[0]["$schema"], "concat": inner, "columns": columns, "config": specs[0]["config"]}


def sentence(parts: Sequence[str]) -> str:
    """Parts that are not empty, as sentences."""
    return " ".join(part[0].upper() + part[1:].rstrip(".") + "." for part in parts if part)

"""Scatter plots as one SVG file that needs nothing else: panels in a grid, series by colour, lines of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

COLOURS = {
    "lhs": "#7f7f7f", "gp": "#0072b2", "soo": "#e69f00", "bamsoo": "#d55e00", "auto": "#009e73", "random": "#cc79a7",
}  # fmt: skip
"""By algorithm, distinguishable by colour-blind readers too."""
WIDE, HIGH = 190, 130
LEFT, TOP, GAP_X, GAP_Y = 46, 62, 34, 46


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one colour; with `steps` a line that holds its value until the next."""

    colour: str
    points: Sequence[tuple[float, float]]
    steps: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One plot."""

    title: str
    x: tuple[float, float]
    y: tuple[float, float]
    series: Sequence[Series]
    log: bool = False
    """Whether x is the exponent of ten that its labels show."""
    log_y: bool = False
    levels: Sequence[tuple[float, str]] = field(default_factory=tuple)
    """Dashed lines at a height, with a word."""


def svg(panels: Sequence[Panel], *, columns: int, title: str, note: str, legend: Sequence[str]) -> str:
    """The panels, row by row."""
    rows = math.ceil(len(panels) / columns)
    width, height = LEFT + columns * (WIDE + GAP_X), TOP + rows * (HIGH + GAP_Y) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="10">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="20" font-size="15" font-weight="bold">{escape(title)}</text>',
        f'<text x="12" y="36" fill="#444444">{escape(note)}</text>',
    ]
    at = width - 20 - sum(24 + 7 * len(name) for name in legend)
    for name in legend:
        parts.append(
            f'<circle cx="{at}" cy="17" r="4" fill="{COLOURS[name]}"/><text x="{at + 8}" y="20">{name}</text>'
        )
        at += 24 + 7 * len(name)
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        parts += _panel(panel, left=LEFT + column * (WIDE + GAP_X), top=TOP + row * (HIGH + GAP_Y))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, *, left: float, top: float) -> list[str]:
    def position(x: float, y: float) -> tuple[float, float]:
        across = (x - panel.x[0]) / (panel.x[1] - panel.x[0])
        up = (min(max(y, panel.y[0]), panel.y[1]) - panel.y[0]) / (panel.y[1] - panel.y[0])
        return left + across * WIDE, top + (1 - up) * HIGH

    parts = [
        f'<rect x="{left}" y="{top}" width="{WIDE}" height="{HIGH}" fill="none" stroke="#bbbbbb"/>',
        f'<text x="{left}" y="{top - 5}" font-weight="bold">{escape(panel.title)}</text>',
    ]
    for x in ticks(*panel.x):
        parts.append(_label(position(x, panel.y[0])[0], top + HIGH + 12, x, log=panel.log, anchor="middle"))
    for y in ticks(*panel.y):
        parts.append(_label(left - 4, position(panel.x[0], y)[1] + 3, y, log=panel.log_y, anchor="end"))
    for height, word in panel.levels:
        y = position(panel.x[0], height)[1]
        parts.append(
            f'<path d="M{left} {y:.1f}h{WIDE}" stroke="#000000" stroke-dasharray="4 3"/>'
            f'<text x="{left + WIDE - 3}" y="{y + 11:.1f}" text-anchor="end">{escape(word)}</text>'
        )
    for series in panel.series:
        points = [position(*point) for point in series.points]
        if series.steps and points:
            path = f"M{points[0][0]:.0f} {points[0][1]:.1f}" + "".join(
                f"H{x:.0f}V{y:.1f}" for x, y in points[1:]
            )
            parts.append(f'<path d="{path}" fill="none" stroke="{series.colour}" stroke-width="1.5"/>')
        elif points:  # a line of no length with round ends is a dot: a tenth of the bytes of a circle
            path = "".join(f"M{x:.0f} {y:.1f}h0" for x, y in points)
            style = 'stroke-width="4" stroke-linecap="round" stroke-opacity="0.7"'
            parts.append(f'<path d="{path}" fill="none" stroke="{series.colour}" {style}/>')
    return parts


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Round numbers between two ends."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(step * by for by in (1, 2, 5, 10) if (high - low) / (step * by) <= most)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _label(x: float, y: float, value: float, *, log: bool, anchor: str) -> str:
    text = f"1e{value:.0f}" if log else f"{value:.4g}"
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#444444">{text}</text>'

"""docs/pictures/flow.svg: how a study flows, in the terms of docs/glossary.md. Drawn by scripts/make-pictures."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 960, 470
INK, DIM, LINE = "#1f2933", "#52606d", "#627d98"


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A step: its term, what it does, and which verb."""

    x: int
    y: int
    wide: int
    term: str
    lines: tuple[str, ...]
    verb: str = ""
    fill: str = "#f0f4f8"
    high: int = 92


LOGIN, STORE, JOBS = "#e3f2fd", "#fff4d6", "#e6f4ea"
BOXES = {
    "file": Box(
        x=24,
        y=58,
        wide=160,
        term="study file",
        lines=("YAML; any value", "may be a range"),
        verb="hpotune init",
        fill=LOGIN,
    ),
    "check": Box(
        x=216,
        y=58,
        wide=160,
        term="rehearsal",
        lines=("a trial up to its first", "step, without weights"),
        verb="hpotune check",
        fill=LOGIN,
    ),
    "plan": Box(
        x=408,
        y=58,
        wide=160,
        term="plan",
        lines=("jobs, time and cost,", "before anything runs"),
        verb="hpotune plan",
        fill=LOGIN,
    ),
    "submit": Box(
        x=600,
        y=58,
        wide=160,
        term="jobs",
        lines=("Slurm jobs, or", "processes here"),
        verb="hpotune submit, run",
        fill=LOGIN,
    ),
    "store": Box(
        x=24,
        y=214,
        wide=352,
        term="store",
        lines=("every trial: its point, state, attempts, scores;", "SQLite, PostgreSQL or a journal file"),
        verb="an ordinary Optuna study",
        fill=STORE,
    ),
    "worker": Box(
        x=600,
        y=214,
        wide=336,
        term="worker",
        lines=("claims a waiting trial, proposes its point,", "records its score; then the next one"),
        verb="hpotune worker",
        fill=JOBS,
    ),
    "trial": Box(
        x=600,
        y=350,
        wide=336,
        term="trial",
        lines=("base model + point: trains, checks itself,", "scores item by item; trial 0 is the baseline"),
        verb="in a process of its own",
        fill=JOBS,
    ),
    "best": Box(
        x=24,
        y=350,
        wide=160,
        term="report",
        lines=("best trial, how much", "better, how certain"),
        verb="hpotune report",
        fill=LOGIN,
    ),
    "sealed": Box(
        x=216,
        y=350,
        wide=160,
        term="sealed test",
        lines=("finalists on a bench-", "mark never searched"),
        verb="hpotune test",
        fill=LOGIN,
    ),
    "follow": Box(
        x=408,
        y=350,
        wide=160,
        term="follow-up",
        lines=("marks lost trials,", "submits missing jobs"),
        verb="hpotune follow-up",
        fill=JOBS,
    ),
}
ARROWS = (
    ((184, 104), (216, 104), ""),
    ((376, 104), (408, 104), ""),
    ((568, 104), (600, 104), ""),
    ((700, 150), (700, 214), "start"),
    ((600, 244), (376, 244), "claim, record"),
    ((376, 276), (600, 276), "a waiting trial, earlier scores"),
    ((720, 306), (720, 350), "point"),
    ((816, 350), (816, 306), "score"),
    ((104, 306), (104, 350), ""),
    ((184, 396), (216, 396), ""),
    ((568, 350), (620, 306), "replaces a lost worker"),
)
"""From, to, words beside it."""


def svg() -> str:
    """The picture. Its own white ground makes it readable on a dark page too."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="13" '
        'font-family="sans-serif">',
        "<title>How a study flows: from the study file to the report</title>",
        f'<defs><marker id="end" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 L10 5 L0 10 z" fill="{LINE}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>',
        *legend(),
        *(line for box in BOXES.values() for line in drawn(box)),
        *(line for start, end, words in ARROWS for line in arrow(start, end, words)),
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def legend() -> list[str]:
    found, x = [], 24
    for fill, words in ((LOGIN, "you, on the login node"), (STORE, "on disk"), (JOBS, "in jobs")):
        found.append(f'<rect x="{x}" y="20" width="14" height="14" rx="3" fill="{fill}" stroke="{LINE}"/>')
        found.append(f'<text x="{x + 20}" y="32" fill="{DIM}">{words}</text>')
        x += 40 + 8 * len(words)
    return found


def drawn(box: Box) -> list[str]:
    found = [
        f'<rect x="{box.x}" y="{box.y}" width="{box.wide}" height="{box.high}" rx="8" fill="{box.fill}" '
        f'stroke="{LINE}"/>',
        text(box.x + 12, box.y + 22, box.term, look=f'font-size="15" font-weight="bold" fill="{INK}"'),
    ]
    for index, line in enumerate(box.lines):
        found.append(text(box.x + 12, box.y + 42 + 17 * index, line, look=f'fill="{INK}"'))
    return [
        *found,
        text(box.x + 12, box.y + 82, box.verb, look=f'font-family="monospace" font-size="12" fill="{DIM}"'),
    ]


def text(x: float, y: float, words: str, *, look: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" {look}>{escape(words)}</text>'


def arrow(start: tuple[int, int], end: tuple[int, int], words: str) -> list[str]:
    (x1, y1), (x2, y2) = start, end
    line = f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{LINE}" stroke-width="1.6" marker-end="url(#end)"/>'
    if not words:
        return [line]
    if y1 == y2:
        x, y, side = (x1 + x2) / 2, y1 - 6, "middle"
    elif x1 == x2:
        x, y, side = x1 + 8, (y1 + y2) / 2 + 4, "start"
    else:
        x, y, side = x1 - 14, (y1 + y2) / 2 - 6, "end"
    return [line, text(x, y, words, look=f'text-anchor="{side}" font-size="12" fill="{DIM}"')]

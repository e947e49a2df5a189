"""The overview of a class as one HTML file that needs no network. Its text comes from students: all of it is escaped.

The Content-Security-Policy forbids every request, and lets only the page's own script run, as in the report of a study.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hpotune import __version__
from hpotune.lab.class_overview import ClassOverview, OverviewRow
from hpotune.lab.lab_tables import overview_cells, summary
from hpotune.lab.study_hints import Hint
from hpotune.reporting.format import number, share_text
from hpotune.reporting.page import page_parts

HERE = Path(__file__).parent
NUMBERS = ("trials", "GPU-hours", "hours", "hints")
"""Columns that are aligned to the right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Card:
    """One number in short, at the top of the page."""

    title: str
    headline: str
    text: str = ""
    tone: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shown:
    """A study as the template prints it."""

    anchor: int
    student: str
    study: str
    state: str
    problem: str
    kinds: str
    """What the hints are about, without what is good."""
    hints: tuple[Hint, ...]


def overview_page(overview: ClassOverview, *, now: datetime) -> str:
    """The page."""
    columns, cells = overview_cells(overview, now=now)
    script = page_parts.sortable_script() + (HERE / "overview.js").read_text(encoding="utf-8")
    shown = [_shown(at, row) for at, row in enumerate(overview.rows)]
    return page_parts.rendered(
        (HERE / "overview.html.jinja").read_text(encoding="utf-8"),
        policy=page_parts.content_policy(script),
        style=page_parts.page_style() + (HERE / "overview.css").read_text(encoding="utf-8"),
        script=script,
        version=__version__,
        made=overview.made,
        summary=summary(overview),
        cards=_cards(overview),
        columns=columns,
        numbers=NUMBERS,
        rows=list(zip(shown, cells, strict=True)),
    )


def _shown(at: int, row: OverviewRow) -> _Shown:
    order = ("problem", "hint", "good")
    return _Shown(
        anchor=at,
        student=row.student,
        study=row.study,
        state=row.state,
        problem=row.problem,
        kinds=", ".join(dict.fromkeys(hint.kind for hint in row.hints if hint.level != "good"))
        or "nothing to do",
        hints=tuple(sorted(row.hints, key=lambda hint: order.index(hint.level))),
    )


def _cards(overview: ClassOverview) -> list[_Card]:
    """Who is done, who needs help, what is said most, what it cost."""
    rows = overview.rows
    done = [row for row in rows if row.state == "done"]
    share = share_text(len(done) / len(rows)) if rows else ""
    stuck = [
        row for row in rows if row.problem or row.state in ("unreadable", "not run", "interrupted", "stopped")
    ]
    names = ", ".join(row.student for row in stuck[:6]) + (
        f" and {len(stuck) - 6} more" if len(stuck) > 6 else ""
    )
    kinds = [hint.kind for row in rows for hint in row.hints if hint.level != "good" and not row.problem]
    often = max(set(kinds), key=lambda kind: (kinds.count(kind), kind), default=None)
    gpu_hours, hours = sum(row.gpu_hours for row in rows), sum(row.trial_hours for row in rows)
    failed = sum(sum(row.failures.values()) for row in rows)
    most = max(rows, key=lambda row: (row.gpu_hours, row.trial_hours), default=None)
    return [
        _Card(title="Done", headline=f"{len(done)} of {len(rows)} studies", text=share, tone="good"),
        _Card(
            title="Need a look", headline=f"{len(stuck)} studies", text=names, tone="bad" if stuck else "good"
        ),
        _Card(
            title="Most frequent hint",
            headline=often or "none",
            text=f"in {kinds.count(often)} of {len(rows)} studies" if often else "",
            tone="open",
        ),
        _Card(
            title="Cost",
            headline=f"{number(gpu_hours)} GPU-hours" if gpu_hours else f"{number(hours)} hours of trials",
            text=f"most: {most.student}" if most and (most.gpu_hours or most.trial_hours) else "",
        ),
        _Card(title="Failed trials", headline=str(failed), tone="open" if failed else "good"),
    ]

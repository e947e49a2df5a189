"""Handouts, hints and the overview of a class for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text

from hpotune.lab.class_overview import ClassOverview, OverviewRow
from hpotune.lab.handouts import Handout
from hpotune.lab.study_hints import Hint
from hpotune.reporting.console import plain_table
from hpotune.reporting.format import STDERR_NOTE, counts, moment, number, score, short
from hpotune.reporting.page.text_table import signed

MARKS = {"good": "good   ", "hint": "hint   ", "problem": "problem"}


def handouts_table(handouts: Sequence[Handout]) -> RenderableType:
    """One line a handout."""
    table = plain_table(("handout", "title", "minutes", "needs"))
    for one in handouts:
        table.add_row(str(one.number), one.title, str(one.minutes), "Slurm" if one.needs_slurm else "-")
    return table


def hints_table(title: str, hints: Sequence[Hint]) -> RenderableType:
    """One line a hint, problems first, each with its next step below; what is good comes last."""
    lines = [Text(title, style="bold")]
    order = list(MARKS)[::-1]
    for hint in sorted(hints, key=lambda one: order.index(one.level)):
        lines.append(Text(f"{MARKS[hint.level]}  {hint.text}"))
        if hint.next_step:
            lines.append(Text(f"         next: {hint.next_step}"))
    return Group(*lines)


def overview_columns(*, gpus: bool, baselines: bool) -> tuple[str, ...]:
    """The columns of the overview: GPU-hours and differences only where a study has them."""
    gain = ("against baseline",) if baselines else ()
    hours = "GPU-hours" if gpus else "hours"
    return (
        "student",
        "study",
        "state",
        "trials",
        "score",
        "best",
        *gain,
        hours,
        "failed",
        "last activity",
        "hints",
    )


def overview_cells(
    overview: ClassOverview, *, now: datetime
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows as text, for the terminal and the page."""
    gpus = any(row.gpu_hours for row in overview.rows)
    baselines = any(row.gain is not None for row in overview.rows)
    columns = overview_columns(gpus=gpus, baselines=baselines)
    return columns, [_cells(row, gpus=gpus, baselines=baselines, now=now) for row in overview.rows]


def _cells(row: OverviewRow, *, gpus: bool, baselines: bool, now: datetime) -> tuple[str, ...]:
    hours = row.gpu_hours if gpus else row.trial_hours
    return (
        row.student,
        row.study,
        row.state,
        f"{row.trials}/{row.budget}" if row.budget else "",
        row.score,
        score(row.best, row.stderr),
        *((gain_text(row),) if baselines else ()),
        short(hours) if row.budget else "",
        counts(row.failures),
        "" if row.last_activity is None else moment(row.last_activity, now=now),
        str(row.open_hints) if row.hints else "",
    )


def gain_text(row: OverviewRow) -> str:
    """`+0.31 ± 0.04`, with what is not significant in words."""
    if row.gain is None:
        return ""
    error = f" ± {row.gain.stderr:.2g}" if row.gain.stderr is not None else ""
    sure = "" if row.gain.significant in (True, None) else ", not significant"
    return f"{signed(row.gain.value)}{error}{sure}"


def summary(overview: ClassOverview) -> str:
    """`30 studies of 28 students: 20 done, 5 running, …; 12.3 GPU-hours`."""
    rows = overview.rows
    states = [row.state for row in rows]
    said = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
    gpu_hours = sum(row.gpu_hours for row in rows)
    hours = (
        f"{number(gpu_hours)} GPU-hours" if gpu_hours else f"{number(sum(r.trial_hours for r in rows))} hours"
    )
    students = len({row.student for row in rows})
    studies = "1 study" if len(rows) == 1 else f"{len(rows)} studies"
    return f"{studies} of {students} student{'' if students == 1 else 's'}: {said}; {hours}"


def overview_table(overview: ClassOverview, *, now: datetime) -> RenderableType:
    """One line a study; below it what could not be read, and why."""
    columns, rows = overview_cells(overview, now=now)
    table = plain_table(columns, right=("trials", "hints", "GPU-hours", "hours"))
    for cells in rows:
        table.add_row(*cells)
    lines: list[RenderableType] = [table, Text(""), Text(summary(overview))]
    lines += [Text(f"{row.student}: {row.problem}") for row in overview.rows if row.problem]
    if any(row.stderr is not None for row in overview.rows):
        lines.append(Text(STDERR_NOTE, style="dim"))
    return Group(*lines)

"""Tables of one line an item: trials, findings of `doctor`, algorithms."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from hpotune.reporting.console import plain_table
from hpotune.reporting.format import STDERR_NOTE, number, race_text, score, state_text
from hpotune.reporting.views.trial_view import TrialView

if TYPE_CHECKING:
    from hpotune.checks.finding import Finding
    from hpotune.reporting.views.algorithm_view import AlgorithmView


FRONT_MARK = "*"


def trials_table(rows: Sequence[TrialView], *, front: Collection[int] = ()) -> RenderableType:
    """One line a trial: number, state, scores, point, minutes, attempts where there were several, why it failed.

    `front`: the numbers of the trials on the Pareto front, which are marked.
    """
    labels = list(dict.fromkeys(label for row in rows for label in row.values))
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    attempts = any(row.attempts > 1 for row in rows)
    repeats = any(row.retry_of is not None for row in rows)
    extra = [*(["attempts"] if attempts else []), *(["retry of"] if repeats else [])]
    table = plain_table(("trial", "state", *labels, *names, "min", *extra, "cause", "why"))
    for row in rows:
        more = [
            *([number(row.attempts)] if attempts else []),
            *([number(row.retry_of)] if repeats else []),
        ]
        table.add_row(
            f"{row.number}{FRONT_MARK if row.number in front else ''}",
            "baseline" if row.kind == "baseline" and row.state == "finished" else state_text(row.state),
            *(score(row.values.get(label), row.stderrs.get(label)) for label in labels),
            *(number(row.params.get(name)) for name in names),
            number(None if row.seconds is None else round(row.seconds / 60, 2)),
            *more,
            *_why(row),
        )
    has_errors = any(error is not None for row in rows for error in row.stderrs.values())
    notes = [STDERR_NOTE] * has_errors + [f"{FRONT_MARK}: on the Pareto front"] * bool(front)
    return Group(table, *(Text(note, style="dim") for note in notes)) if notes else table


def _why(row: TrialView) -> tuple[str, str]:
    """The cause of a failure and its message, or the limits that a trial violates, or why its score is an estimate."""
    cause, message = (row.failure.cause, row.failure.message) if row.failure else ("", "")
    violated = f"violates {', '.join(row.breaks)}" if row.breaks else ""
    ended = race_text(row.race) if row.race else ""
    return cause, (message or violated or ended) + (" (forgiven)" if row.forgiven else "")


def findings_table(findings: Sequence[Finding]) -> RenderableType:
    """One line a finding of `doctor`, with what to change."""
    table = plain_table(("", "what", "found", "change"))
    for finding in findings:
        table.add_row(finding.level, finding.kind, finding.text, finding.advice)
    return table


def algorithms_table(algorithms: Sequence[AlgorithmView]) -> RenderableType:
    """One line an algorithm."""
    table = plain_table(
        ("algorithm", "use it for", "cost of a proposal", "parallel workers", "not supported", "source")
    )
    for one in algorithms:
        cannot = ", ".join(one.cannot) or "-"
        table.add_row(one.name, one.when, one.cost, one.parallel, cannot, one.source)
    return table


def algorithm_page(algorithm: AlgorithmView) -> RenderableType:
    """One algorithm with its options."""
    lines = (
        ("use it for", algorithm.when),
        ("cost of a proposal", algorithm.cost),
        ("parallel workers", algorithm.parallel),
        ("not supported", ", ".join(algorithm.cannot) or "-"),
        ("source", algorithm.source),
    )
    options = plain_table(("search.options", "meaning"))
    for name, meaning in algorithm.options.items():
        options.add_row(name, meaning)
    return Group(
        Text(algorithm.name, style="bold"),
        *(Text(f"{title}: {text}") for title, text in lines),
        Text(""),
        options if algorithm.options else Text("It has no options."),
    )

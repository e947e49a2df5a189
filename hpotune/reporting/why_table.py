"""Why a trial ended as it did, for the terminal: sentences, its attempts, and the lines of its log that matter."""

from __future__ import annotations

from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpotune.reporting.console import plain_table
from hpotune.reporting.format import length, moment, point, state_text
from hpotune.reporting.views.why import WhyResult


def why_table(result: WhyResult, *, now: datetime) -> RenderableType:
    """The state, the cause, what the rules did, advice, the attempts, and the log's lines."""
    cause = f" ({result.cause})" if result.cause else ""
    lines: list[RenderableType] = [
        Text(f"trial {result.trial}: {state_text(result.state)}{cause}", style="bold")
    ]
    if result.message:
        lines.append(Text(result.message))
    if result.params:
        lines.append(Text(f"point: {point(result.params)}"))
    lines += [Text(sentence) for sentence in result.policy]
    if result.advice:
        lines.append(Text(f"advice: {result.advice}"))
    if result.attempts or result.running:
        lines += [Text(""), _attempts(result, now=now)]
    if result.lines:
        rank = "" if result.rank is None else f", rank {result.rank}"
        lines += [Text(""), Text(f"{result.log}{rank}:", style="bold"), *map(Text, result.lines)]
    return Group(*lines)


def _attempts(result: WhyResult, *, now: datetime) -> Table:
    table = plain_table(("attempt", "host", "job", "started", "duration", "ended", "why"))
    for index, one in enumerate(result.attempts, start=1):
        stale = " (worker lost)" if one.ended_by_other else ""
        message = "" if one.message == result.message else one.message
        table.add_row(
            str(index),
            one.host,
            one.job,
            moment(one.start, now=now),
            length(one.seconds),
            f"{one.outcome}{stale}",
            ": ".join(filter(None, [one.cause, message])),
        )
    if (running := result.running) is not None:
        started = "" if running.start is None else moment(running.start, now=now)
        index = len(result.attempts) + 1
        table.add_row(str(index), running.host, running.job, started, "", "running", "")
    return table

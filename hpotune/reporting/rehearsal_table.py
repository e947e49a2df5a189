"""What a rehearsal found: one line for `check`, the rows and requests for `preview`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from hpotune.records.rehearsal_record import Lengths, PreviewRow, RehearsalResult, RowReason, SourceRows
from hpotune.reporting.console import plain_table

BAR = 40
"""Characters of the longest bar of a histogram."""
ROW_NUMBERS = 5
"""Row numbers that are listed for each reason."""
START, END = "⟦", "⟧"
"""Around counted text where the output is no terminal."""


def rehearsal_summary(result: RehearsalResult, *, again: bool) -> str:
    """One line: rows, lengths, requests, what it took."""
    if result.missing and not result.used:
        return f"not rehearsed: what the warnings name is not downloaded ({_took(result)})"
    parts = [f"{result.used:,} rows"]
    if result.dropped:
        parts.append(f"{len(result.dropped):,} left out")
    if result.cut:
        parts.append(f"{len(result.cut):,} cut to data.max_length")
    if result.lengths is not None:
        parts.append(f"{result.lengths.min} to {result.lengths.max} tokens")
    parts += [f"{one.name} {100 * one.share:.3g} % ({one.rows:,} rows an epoch)" for one in result.sources]
    parts += [f"{name}: {task.requests:,} requests" for name, task in result.requests.items()]
    took = "unchanged since the last rehearsal" if again else _took(result)
    return f"rehearsed{' in part' if result.missing else ''}: {', '.join(parts)} ({took})"


def _took(result: RehearsalResult) -> str:
    return f"{result.seconds:.0f} s, {result.peak_memory_gb:.1f} GB"


def preview_json(result: RehearsalResult, *, rows: int | None = None) -> dict[str, object]:
    """The keys of `hpotune preview --json`. `rows`: at most so many rows; None: all."""
    cut = set(result.cut)
    return {
        "rows": [row.model_dump(exclude={"parts"}) for row in result.rows[:rows]],
        "sources": result.sources,
        "dropped": result.dropped,
        "cut": [{"row": row.row, "tokens": row.tokens} for row in result.rows if row.row in cut],
        "lengths": result.lengths,
        "requests": result.requests,
        "warnings": result.warnings,
    }


def preview_table(result: RehearsalResult, *, rows: int) -> RenderableType:
    """The first rows with their counted part marked, then what is left out, the lengths, and the requests."""
    marked = sys.stdout.isatty()
    legend = "the loss counts the underlined text" if marked else f"the loss counts the text in {START}{END}"
    blocks: list[RenderableType] = [Text(legend, style="dim"), Text("")]
    for row in result.rows[:rows]:
        blocks += [
            Text(f"row {row.row}{_of(row.source)}, {row.tokens} tokens", style="bold"),
            _row_text(row, marked),
            Text(""),
        ]
    if len(result.rows) > rows:
        blocks += [
            Text(f"… and {len(result.rows) - rows:,} more rows (--rows, --json)", style="dim"),
            Text(""),
        ]
    if result.sources:
        blocks += [_sources_table(result.sources), Text("")]
    blocks += [Text(line) for line in _left_out_lines(result.dropped)]
    if result.cut:
        numbers = ", ".join(map(str, result.cut[:ROW_NUMBERS]))
        blocks.append(
            Text(f"{len(result.cut):,} rows are cut to data.max_length: {_more(numbers, len(result.cut))}")
        )
    if result.lengths is not None:
        blocks += [Text(""), *_histogram(result.lengths)]
    for name, task in result.requests.items():
        blocks += [Text(""), Text(f"{name}: {task.requests:,} requests", style="bold")]
        blocks += [Text(f"{part}: {text}") for part, text in task.first.items()]
    blocks += [Text(f"warning: {text}") for text in result.warnings]
    return Group(*blocks)


def _row_text(row: PreviewRow, marked: bool) -> Text:
    text = Text()
    parts = row.parts if row.text != "" and any(counted for _, counted in row.parts) else [(row.text, False)]
    for part, counted in parts:
        if counted and not marked:
            text.append(f"{START}{part}{END}")
        else:
            text.append(part, style="underline" if counted else "")
    if parts is not row.parts:
        text.append(f"\nlabel: {row.counted}")
    return text


def _left_out_lines(dropped: Sequence[RowReason]) -> Iterator[str]:
    """A line for each reason: its count and the first row numbers."""
    for (source, reason), count in Counter((row.source, row.reason) for row in dropped).most_common():
        numbers = [str(row.row) for row in dropped if (row.source, row.reason) == (source, reason)]
        shown = _more(", ".join(numbers[:ROW_NUMBERS]), count)
        yield f"{count:,} rows{_of(source)} are left out, {reason}: {shown}"


def _of(source: str) -> str:
    return f" of {source}" if source else ""


def _sources_table(sources: Sequence[SourceRows]) -> RenderableType:
    """What an epoch trains of each source of a mixture."""
    names = ("source", "weight", "share", "rows an epoch", "of", "passes", "validation")
    table = plain_table(names, right=names[1:])
    for one in sources:
        counts = (f"{one.rows:,}", f"{one.available:,}", str(one.passes), f"{one.validation:,}")
        table.add_row(one.name, f"{one.weight:g}", f"{100 * one.share:.3g} %", *counts)
    return table


def _more(numbers: str, count: int) -> str:
    return f"rows {numbers}{', …' if count > ROW_NUMBERS else ''}"


def _histogram(lengths: Lengths) -> Iterator[RenderableType]:
    yield Text(
        f"tokens per row: median {lengths.median:g}, mean {lengths.mean:.0f}, 95 % below {lengths.p95:.0f}, "
        f"longest {lengths.max}"
    )
    table = plain_table(("tokens", "rows", ""), right=("rows",))
    most = max(one.rows for one in lengths.histogram)
    for one in lengths.histogram:
        table.add_row(f"{one.start}–{one.end - 1}", f"{one.rows:,}", "█" * round(BAR * one.rows / most))
    yield table

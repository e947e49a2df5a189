"""Spans as a gantt chart: text for a terminal, or one self-contained SVG file. Measured or simulated spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

from hpotune.records.trial import Span
from hpotune.reporting.format import length
from hpotune.workspace import timeline
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.heartbeat import read_heartbeat

LOOK: dict[str, tuple[str, str, str]] = {
    "queue": ("·", "#d9d9d9", "waits in the queue"),
    "start": ("▒", "#e69f00", "job starts"),
    "load": ("░", "#f0e442", "trial loads"),
    "trial": ("█", "#0072b2", "trial trains and scores"),
    "idle": ("-", "#d55e00", "waits for other trials"),
}
"""Character, colour (distinct for colour-blind readers too) and meaning of each kind of span."""
_NEXT = "▓"
"""Character of every second trial of a row, so that neighbours differ."""
_KIND = {"queue": "queue", "start": "start", "idle": "idle", "load": "load", "data": "load"}
MOST_ROWS = 24
"""With more jobs than this, jobs that do not overlap share rows."""
_UNITS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


def kind(span: Span) -> str:
    """The kind of a span in LOOK; all phases of a trial but loading are `trial`."""
    return _KIND.get(span.phase, "trial")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    label: str
    spans: tuple[Span, ...]


def rows(spans: Sequence[Span], *, most: int = MOST_ROWS) -> list[_Row]:
    """One row a job, by start; with more than `most` jobs those that do not overlap share a row."""
    by_job: dict[str, list[Span]] = {}
    for span in spans:
        by_job.setdefault(span.job, []).append(span)
    jobs = sorted(by_job.items(), key=lambda job: (_extent(job[1])[0], _order(job[0])))
    if len(jobs) <= most:
        return [_Row(label=name, spans=tuple(found)) for name, found in jobs]
    ends: list[float] = []
    lanes: list[list[Span]] = []
    for _, found in jobs:
        start, end = _extent(found)
        held = [span for span in found if span.phase != "queue"]
        lane = next((i for i, free in enumerate(ends) if free <= start), len(lanes))
        if lane == len(lanes):
            lanes.append([])
            ends.append(0.0)
            held = list(found)
        lanes[lane] += held
        ends[lane] = end
    return [_Row(label=f"slot {i + 1}", spans=tuple(lane)) for i, lane in enumerate(lanes)]


def _extent(spans: Sequence[Span]) -> tuple[float, float]:
    """Start and end of a job; of one that only waits, those of its wait."""
    own = [span for span in spans if span.phase != "queue"] or list(spans)
    return min(span.start for span in own), max(span.end for span in own)


def _order(job: str) -> tuple[object, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in job.replace(":", "_").split("_"))


def text(spans: Sequence[Span], *, width: int = 72) -> str:
    """The chart for a terminal: a line a job, `width` characters for the whole time, and a legend."""
    if not spans:
        return "nothing has run"
    found = rows(spans)
    begin, end = min(s.start for s in spans), max(s.end for s in spans)
    step = max(end - begin, 1e-9) / width
    margin = max(len(row.label) for row in found) + 1
    lines = [
        f"{row.label:<{margin}}|{_characters(row.spans, begin, step, width)}|" for row in found[:MOST_ROWS]
    ]
    if len(found) > MOST_ROWS:
        lines.append(f"… and {len(found) - MOST_ROWS} more")
    used = {kind(span) for span in spans}
    foot = f"{'':<{margin}}0{length(end - begin):>{width + 1}}"
    legend = "   ".join(f"{letter} {what}" for name, (letter, _, what) in LOOK.items() if name in used)
    return "\n".join([*lines, foot, legend])


def _characters(spans: Sequence[Span], begin: float, step: float, width: int) -> str:
    """The row of a job; each character is the kind of span that fills most of its time."""
    trials = dict.fromkeys(
        span.trial for span in sorted(spans, key=lambda s: s.start) if kind(span) == "trial"
    )
    second = {trial for index, trial in enumerate(trials) if index % 2}
    shares: list[dict[str, float]] = [{} for _ in range(width)]
    for span in spans:
        letter = _NEXT if kind(span) == "trial" and span.trial in second else LOOK[kind(span)][0]
        first, last = (span.start - begin) / step, (span.end - begin) / step
        for cell in range(int(first), min(width, int(last) + 1)):
            share = min(last, cell + 1) - max(first, cell)
            shares[cell][letter] = shares[cell].get(letter, 0.0) + share
    return "".join(
        max(share, key=lambda letter: share[letter]) if sum(share.values()) > 0.3 else " " for share in shares
    )


def svg(
    spans: Sequence[Span], *, title: str, note: str = "", width: int = 960, until: float | None = None
) -> str:
    """The chart as SVG. `until`: seconds that the time axis spans at least, so that charts can be compared."""
    found = rows(spans)
    begin = min((span.start for span in spans), default=0.0)
    whole = max(until or 0.0, max((span.end for span in spans), default=1.0) - begin, 1e-9)
    left, top, high = 76, 58 if note else 42, 22
    scale = (width - left - 24) / whole
    bottom = top + high * len(found)
    height = bottom + 62
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="16" font-weight="bold">{escape(title)}</text>',
    ]
    if note:
        parts.append(f'<text x="12" y="44" fill="#444444">{escape(note)}</text>')
    parts += _axis(whole, left=left, top=top, bottom=bottom, scale=scale)
    for index, row in enumerate(found):
        y = top + high * index
        parts.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(row.label)}</text>')
        for span in row.spans:
            parts += _bar(span, x=left + (span.start - begin) * scale, y=y + 3, scale=scale, high=high - 6)
    parts += _legend({kind(span) for span in spans}, y=height - 14)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axis(whole: float, *, left: float, top: float, bottom: float, scale: float) -> list[str]:
    """Thin lines at round times, with labels below."""
    unit = next((u for u in _UNITS if whole / u <= 10), _UNITS[-1] * max(1, round(whole / _UNITS[-1] / 8)))
    parts = []
    for index in range(int(whole / unit) + 1):
        x = left + index * unit * scale
        line = f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="#e5e5e5"/>'
        label = _tick(index * unit, unit)
        parts += [
            line,
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#444444">{label}</text>',
        ]
    return parts


def _tick(seconds: float, unit: float) -> str:
    """The time in the largest unit that divides the step of the axis: 90 s, 45 min, 6 h, 2 d."""
    words = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    word, size = next((word, size) for word, size in words if unit % size == 0)
    return f"{seconds / size:.0f} {word}" if seconds else "0"


def _bar(span: Span, *, x: float, y: float, scale: float, high: float) -> list[str]:
    """The rectangle of a span, with the trial's number where it fits."""
    _, colour, _ = LOOK[kind(span)]
    wide = max((span.end - span.start) * scale, 0.4)
    thin, offset = (high / 4, high * 3 / 8) if kind(span) in ("queue", "idle") else (high, 0.0)
    parts = [
        f'<rect x="{x:.1f}" y="{y + offset:.1f}" width="{wide:.1f}" height="{thin:.1f}" fill="{colour}">'
        f"<title>{_hint(span)}</title></rect>"
    ]
    if kind(span) == "trial":
        parts[0] = parts[0].replace("<rect ", '<rect stroke="#ffffff" stroke-width="0.8" ')
        if span.trial is not None and wide > 9 * len(str(span.trial)) + 4:
            middle = x + wide / 2
            parts.append(
                f'<text x="{middle:.1f}" y="{y + 12:.1f}" text-anchor="middle" fill="#ffffff">{span.trial}</text>'
            )
    return parts


def _hint(span: Span) -> str:
    """The tooltip of a span."""
    of = "" if span.trial is None else f"trial {span.trial}, "
    return escape(f"job {span.job}: {of}{span.phase}, {length(span.end - span.start)}")


def _legend(used: set[str], *, y: float) -> list[str]:
    parts, x = [], 12
    for name, (_, colour, what) in LOOK.items():
        if name in used:
            parts.append(f'<rect x="{x}" y="{y - 11}" width="14" height="14" fill="{colour}"/>')
            parts.append(f'<text x="{x + 20}" y="{y}">{what}</text>')
            x += 40 + 7 * len(what)
    return parts


def read_spans(folder: StudyFolder) -> list[Span]:
    """Measured spans of a study: of its jobs, with trials split into their phases, and of the queue before them."""
    own = [span for path in sorted(folder.jobs.glob("*/spans-*.jsonl")) for span in timeline.read_spans(path)]
    spans = []
    for span in own:
        inside = _phases(folder, span) if span.trial is not None else []
        spans += _filled(span, inside)
    return [*_queues(folder), *spans]


def _filled(whole: Span, inside: Sequence[Span]) -> list[Span]:
    """A trial's phases without gaps: before the first phase it loads (its process starts), other gaps are trial."""
    found: list[Span] = []
    at = whole.start
    for span in inside:
        if span.start > at:
            found.append(replace(whole, phase="trial" if found else "load", start=at, end=span.start))
        found.append(replace(span, job=whole.job, start=max(span.start, at)))
        at = max(at, span.end)
    if whole.end > at:
        found.append(replace(whole, start=at))
    return found


def _phases(folder: StudyFolder, whole: Span) -> list[Span]:
    """The phases that the trial's process wrote during this attempt."""
    file = folder.trial(whole.trial if whole.trial is not None else -1) / "spans.jsonl"
    found = timeline.read_spans(file, job=whole.job)
    return sorted(
        (span for span in found if whole.start <= span.start and span.end <= whole.end + 1),
        key=lambda span: span.start,
    )


def _queues(folder: StudyFolder) -> list[Span]:
    """Time in the queue: from the submission of each job to the start of its worker."""
    found = []
    for submitted in folder.jobs.glob("*/job.json"):
        submitted_at = submitted.stat().st_mtime
        for life in submitted.parent.glob("life-*.json"):
            job = f"{submitted.parent.name}_{life.stem.removeprefix('life-')}"
            heartbeat = read_heartbeat(folder, job)
            start = heartbeat.start if heartbeat is not None else submitted_at
            if start > submitted_at:
                found.append(Span(job=job, trial=None, phase="queue", start=submitted_at, end=start))
    return found

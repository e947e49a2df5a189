"""The lines of a log that show why a trial ended: the first error of its last attempt. Text in, text out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hpotune.config.text.outside_text import without_colours
from hpotune.workspace.folder import NEW_ATTEMPT_LINE

LINES = 20
WIDTH = 300
"""Characters of a line that are shown."""
_NEAR = 60
"""Most lines between errors of one crash: of ranks that end each other, and of their launcher's summary."""
_BEFORE = 4
"""Lines shown before an error that is no traceback."""
_TRACEBACK = "Traceback (most recent call last):"
_DIRECT = "The above exception was the direct cause"
_CHAIN = ("During handling of the above exception", _DIRECT)
_HIDING = 6
"""Most lines that are shown of an exception that hides another one."""
_RANK = re.compile(r"^(?:\[rank(\d+)\]:|\[default(\d+)\]:|(\d+): ) ?")
"""What torch, torchrun --tee and srun --label write before a rank's line."""
_ROOT = re.compile(r"Root Cause \(first observed failure\)")
_SECONDARY = re.compile(
    r"ChildFailedError|SignalException|Connection closed by peer|Connection reset by peer|Broken pipe|"
    r"DistNetworkError|KeyboardInterrupt|SystemExit|remote process exited|"
    r"Some NCCL operations have failed or timed out|"
    r"To avoid data inconsistency|terminate called after throwing|DistBackendError.*(abort|socket)",
)
"""Errors that another process's end causes."""
_ERROR = re.compile(
    r"^(\w+\.)*[A-Z]\w*(Error|Exception|Exit|Finite|Failure)\b|^(\w+\.)*\w+Error: |"
    r"CUDA (error|out of memory)|[Oo]ut of memory|OutOfMemory|oom[-_ ]kill|OOM Killed|"
    r"NCCL (WARN|error)|ncclSystemError|ncclUnhandled|Watchdog caught|uncorrectable ECC|NVRM: Xid|Xid \(|"
    r"device-side assert|command not found|No such file or directory|Permission denied|No space left on device|"
    r"Segmentation fault|core dumped|Bus error|^Killed$|Killed\s+\S|^Terminated$|Fatal Python error|"
    r"\bSIGKILL\b|^error: |\bFATAL\b",
)
_OF_SLURM = re.compile(r"^(slurmstepd|srun|sbatch): ")
_SLURM_ERROR = re.compile(
    r"^(slurmstepd|srun): error:|^srun: .*(First task exited|Terminating|Bad exit|Job step aborted)"
)
_NAN = re.compile(r"\b(nan|inf)\b", re.IGNORECASE)
_STACK = re.compile(r"^\s*(frame #\d+:|#\d+ 0x|\[bt\])")
_BAR = re.compile(r"\d+%\|")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Region:
    """Lines that belong to one error."""

    start: int
    end: int
    """Index of its first line in the log, and of the line after its last."""
    lines: tuple[str, ...]
    weight: int
    """0: the error itself. 1: an error that another error caused. 2: Slurm's message about it."""
    rank: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """The lines that a report shows of a log."""

    lines: tuple[str, ...]
    error: bool
    """True: they are an error. False: they are the last lines."""
    rank: int | None = None
    """The rank that wrote them, where the log names it."""


def excerpt(text: str, *, cause: str | None = None, message: str = "", limit: int = LINES) -> Excerpt:
    """The lines that matter, at most `limit`: a traceback, an error with its surrounding lines, or the last lines.

    `cause` and `message` are those of the failure; of several errors the one that contains the message is chosen.
    """
    lines = _plain(_last_attempt(text))
    found = _near_the_end(_regions(lines, cause=cause), total=len(lines), cause=cause)
    if not found:
        last = _collapsed([line for line in lines if line.strip()])[-limit:]
        return Excerpt(lines=tuple(last), error=False)
    chosen = _chosen(found, message=message, root=_root_rank(lines))
    shown = _collapsed(chosen.lines)
    shown = _of_traceback(shown, limit) if _TRACEBACK in shown[0] else shown[:limit]
    return Excerpt(lines=tuple(shown), error=True, rank=chosen.rank)


def _of_traceback(lines: Sequence[str], limit: int) -> list[str]:
    """The lines of a traceback that matter: of a chain the exception that holds the reason, and the one that hid it.

    The reason is the first exception of those linked by `raise … from`; one that was being handled when another was
    raised is not the reason of that.
    """
    if len(lines) <= limit:
        return list(lines)
    links = [index for index, line in enumerate(lines) if line.startswith(_CHAIN)]
    handled = [index for index in links if not lines[index].startswith(_DIRECT)]
    start = handled[-1] + 1 if handled else 0
    direct = [index for index in links if index > start]
    if not direct:
        return _end_of_exception(lines[start:], limit)
    rest = _end_of_exception(lines[direct[-1] + 1 :], _HIDING)
    reason = [line for line in lines[start : direct[0]] if line]
    return [*_end_of_exception(reason, limit - len(rest) - 1), lines[direct[0]], *rest]


def _end_of_exception(lines: Sequence[str], limit: int) -> list[str]:
    """The exception's own line, with the frames before it and what its message says in further lines."""
    errors = [index for index, line in enumerate(lines) if line and not line.startswith((" ", "\t"))]
    error = errors[-1] if errors and _TRACEBACK not in lines[errors[-1]] else len(lines) - 1
    message = lines[error : error + max(1, limit // 2)]
    return [*lines[:error][-(limit - len(message)) :], *message]


def _last_attempt(text: str) -> str:
    before, mark, last = text.rpartition(NEW_ATTEMPT_LINE)
    return before.rpartition(NEW_ATTEMPT_LINE)[2] if mark and not last.strip() else last


def _plain(text: str) -> list[str]:
    """Lines without colours, each progress bar as it stood last, without C++ stacks."""
    lines = [
        next((part for part in reversed(line.split("\r")) if part.strip()), "")
        for line in without_colours(text).split("\n")
    ]
    return [line.rstrip() for line in lines if not _STACK.match(_unranked(line))]


def _unranked(line: str) -> str:
    return _RANK.sub("", line, count=1)


def _rank(line: str) -> int | None:
    match = _RANK.match(line)
    return int(next(group for group in match.groups() if group is not None)) if match else None


def _root_rank(lines: Sequence[str]) -> int | None:
    """The rank that torchrun's summary names as the first to fail; None without a summary."""
    for index, line in enumerate(lines):
        if _ROOT.search(line):
            ranks = [re.search(r"rank\s*:\s*(\d+)", other) for other in lines[index : index + 8]]
            return next((int(match.group(1)) for match in ranks if match), None)
    return None


def _regions(lines: Sequence[str], *, cause: str | None) -> list[_Region]:
    """Every error of the log in order; lines that name a rank are read rank by rank."""
    streams: dict[int | None, list[tuple[int, str]]] = {}
    for index, line in enumerate(lines):
        streams.setdefault(_rank(line), []).append((index, _unranked(line)))
    found: list[_Region] = []
    for rank, stream in streams.items():
        tracebacks = _tracebacks(stream, rank=rank)
        taken = {n for region in tracebacks for n in range(region.start, region.end)}
        found += tracebacks
        found += _single(stream, taken, rank=rank, cause=cause)
    return sorted(found, key=lambda region: region.start)


def _tracebacks(stream: Sequence[tuple[int, str]], *, rank: int | None) -> list[_Region]:
    found: list[_Region] = []
    texts = [text for _, text in stream]
    at = 0
    while at < len(texts):
        if _TRACEBACK not in texts[at]:
            at += 1
            continue
        start, end = at, _traceback_end(texts, at)
        while (after := _chained(texts, end)) is not None:
            end = _traceback_end(texts, after)
        error = next((t for t in reversed(texts[start:end]) if t and not t.startswith(" ")), "")
        found.append(
            _Region(
                start=stream[start][0], end=stream[end - 1][0] + 1, lines=tuple(texts[start:end]),
                weight=1 if _SECONDARY.search(error) else 0, rank=rank,
            )
        )  # fmt: skip
        at = end
    return found


def _traceback_end(texts: Sequence[str], start: int) -> int:
    """Index after the last line of a traceback's message."""
    at = start + 1
    while at < len(texts) and (texts[at].startswith((" ", "\t")) or not texts[at]):
        at += 1
    at = min(at + 1, len(texts))  # the exception itself; then what its message says in further lines
    while at < len(texts) and (
        texts[at].startswith(("  ", "\t"))
        or (
            texts[at]
            and at + 1 < len(texts)
            and texts[at + 1].startswith(("  ", "\t"))
            and _TRACEBACK not in texts[at]
        )
    ):
        at += 1
    return at


def _chained(texts: Sequence[str], end: int) -> int | None:
    """Index where the traceback starts that this one led to; None where there is none."""
    ahead = [n for n in range(end, min(end + 5, len(texts))) if texts[n].strip()][:2]
    if len(ahead) == 2 and texts[ahead[0]].startswith(_CHAIN) and _TRACEBACK in texts[ahead[1]]:
        return ahead[1]
    return None


def _single(
    stream: Sequence[tuple[int, str]], taken: set[int], *, rank: int | None, cause: str | None
) -> list[_Region]:
    """Errors of one line, each with the lines around it."""
    found: list[_Region] = []
    for at, (index, text) in enumerate(stream):
        weight = _weight(text, cause=cause)
        if index in taken or weight is None:
            continue
        if found and index < found[-1].end and weight >= found[-1].weight:
            continue
        first, last = max(0, at - _BEFORE), min(len(stream), at + LINES - _BEFORE)
        around = [text for _, text in stream[first:last] if text.strip()]
        found.append(
            _Region(start=index, end=stream[last - 1][0] + 1, lines=tuple(around), weight=weight, rank=rank)
        )
    return found


def _weight(text: str, *, cause: str | None) -> int | None:
    """The weight of a line, as in _Region; None for a line that is not an error."""
    if _ROOT.search(text):
        return 1
    if _OF_SLURM.match(text):
        return 2 if _SLURM_ERROR.match(text) or _ERROR.search(text) else None
    if _ERROR.search(text) or (cause == "nan" and _NAN.search(text)):
        return 1 if _SECONDARY.search(text) else 0
    return None


def _near_the_end(regions: Sequence[_Region], *, total: int, cause: str | None) -> list[_Region]:
    """The errors of the last crash; none where a process that was killed ran on long after its last error."""
    if cause in ("killed", "preempted", "timeout") and regions and total - regions[-1].end > _NEAR:
        return []
    last: list[_Region] = []
    for region in reversed(regions):
        if last and last[0].start - region.end > _NEAR:
            break
        last.insert(0, region)
    return last


def _chosen(regions: Sequence[_Region], *, message: str, root: int | None) -> _Region:
    """Of the lowest weight: the error of the rank that failed first, else one with the message, else the first."""
    weight = min(region.weight for region in regions)
    lightest = [region for region in regions if region.weight == weight]
    pieces = [piece for piece in re.split(r"; |: ", message) if len(piece) >= 20]
    named = [r for r in lightest if any(piece in line for piece in pieces for line in r.lines)]
    of_root = [r for r in lightest if root is not None and r.rank == root]
    return (of_root or named or lightest)[0]


def _collapsed(lines: Sequence[str]) -> list[str]:
    """Repeated lines once, with their count; of a progress bar only its last line."""
    shown: list[tuple[str, int]] = []
    for line in lines:
        line = line if len(line) <= WIDTH else f"{line[:WIDTH]}…"
        if shown and shown[-1][0] == line:
            shown[-1] = (line, shown[-1][1] + 1)
        elif shown and _BAR.search(line) and _BAR.search(shown[-1][0]):
            shown[-1] = (line, 1)
        else:
            shown.append((line, 1))
    return [line if times == 1 else f"{line}  ({times} times)" for line, times in shown]

"""reports.jsonl and stop.jsonl in a trial's folder: what its program reported, and whether it had to stop.

One process appends (rank 0 of the trial); the worker, displays and the other ranks read. stop.jsonl is removed by the
worker before each attempt.
Only the standard library is imported, because a user's own trainer imports this module.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

REPORTS = "reports.jsonl"
STOP = "stop.jsonl"
_TAIL_BYTES = 65536
"""The end of the file in which a display looks for the last values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """Values that were reported at one moment."""

    values: Mapping[str, float]
    """Metric -> number, perhaps NaN or infinite."""
    step: int | None = None
    """None: the program named none."""
    attempt: str = ""
    """The attempt at the trial; a new one may begin at an earlier step."""
    continues: bool = False
    """Whether it only says that the attempt continues from the state at `step`."""


def append_line(file_path: Path, record: Mapping[str, object]) -> None:
    """Append a line to one of the two files, in one write."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(file_path, flags, 0o666)
    try:
        os.write(file, (json.dumps(record) + "\n").encode())
    finally:
        os.close(file)


def read_reports(folder: Path) -> list[Observation]:
    """All reports of the trial, oldest first; a damaged line, such as the last one of a killed process, is left out."""
    found = map(_observation, _records(folder / REPORTS))
    return [one for one in found if one.values or one.continues]


def forget_stop(folder: Path) -> None:
    """Forget the stops of earlier attempts."""
    (folder / STOP).unlink(missing_ok=True)


def make_stop_file(folder: Path) -> None:
    """Make the file before it is needed: other nodes see what is added to a file sooner than a new file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(folder / STOP, flags, 0o666))


def stop_after(folder: Path) -> int | None:
    """The step, or the count of calls of `should_stop`, after which all ranks stop as their job ends; or None."""
    return next((n for one in _records(folder / STOP) if isinstance(n := one.get("stop_after"), int)), None)


def was_paused(folder: Path) -> bool:
    """Whether `hpotune.should_stop()` was True in this attempt because its job ends."""
    return any(one.get("paused") is True for one in _records(folder / STOP))


def last_reported(folder: Path, metrics: Sequence[str]) -> dict[str, float]:
    """The last reported value of each metric, read from the end of the file."""
    found: dict[str, float] = {}
    for record in _records(folder / REPORTS, tail=_TAIL_BYTES):
        found.update({k: v for k, v in _observation(record).values.items() if k in metrics})
    return found


def surviving(observations: Iterable[Observation], *, attempt: str) -> list[Observation]:
    """The observations that belong to the run as it is in this attempt.

    An attempt that continues from a checkpoint goes back to an earlier step: what earlier attempts reported from there
    on is dropped. What they reported without a step is dropped, too, since nothing says whether the run still has it.
    """
    kept: list[Observation] = []
    current, back_to = None, None
    for one in observations:
        if one.attempt != current:
            current, back_to = one.attempt, None
            kept = [other for other in kept if other.step is not None]
        if back_to is None and one.step is not None:
            back_to = one.step + one.continues
            kept = [o for o in kept if o.attempt == current or (o.step is not None and o.step < back_to)]
        kept.append(one)
    return [one for one in kept if one.values and (one.step is not None or one.attempt == attempt)]


def _observation(record: Mapping[str, object]) -> Observation:
    metrics, step = record.get("metrics"), record.get("step")
    values = metrics.items() if isinstance(metrics, dict) else ()
    return Observation(
        values={
            str(k): float(v) for k, v in values if isinstance(v, (int, float)) and not isinstance(v, bool)
        },
        step=step if isinstance(step, int) and not isinstance(step, bool) else None,
        attempt=str(record.get("attempt", "")),
        continues=record.get("continues") is True,
    )


def _records(path: Path, *, tail: int | None = None) -> Iterator[dict[str, object]]:
    try:
        if not path.is_file():  # a pipe would be waited for
            return
        with path.open("rb") as file:
            if tail is not None:
                file.seek(max(0, file.seek(0, 2) - tail))
            for line in file:
                with suppress(ValueError, RecursionError):
                    record = json.loads(line)
                    if isinstance(record, dict):
                        yield record
    except OSError:
        return

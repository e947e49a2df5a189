"""How a worker spent its time: lines of its log, and spans in jobs/<id>/spans-<job>.jsonl, one writer per file.

The trial's own process writes its phases in the same form to trials/<n>/spans.jsonl (finetune/output.py).
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from hpotune.config.json_file import DamagedFileError, decoding, json_lines
from hpotune.config.text.outside_text import console_text
from hpotune.records.trial import Span, Worker
from hpotune.workspace.atomic_files import open_append
from hpotune.workspace.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """The spans of one worker. Errors of a full disk are ignored."""

    folder: StudyFolder
    worker: Worker
    clock: Callable[[], float] = time.time

    def add_span(self, phase: str, start: float, *, trial: int | None = None) -> None:
        """Append what the worker did from `start` (Unix seconds) until now."""
        job = self.worker.job_key
        span = Span(job=job, trial=trial, phase=phase, start=start, end=self.clock())
        file = self.folder.jobs / self.worker.job.split("_")[0] / f"spans-{job.replace(':', '-')}.jsonl"
        with suppress(OSError), open_append(file) as lines:
            lines.write((json.dumps(asdict(span)) + "\n").encode())


def read_spans(file: Path, *, job: str = "") -> list[Span]:
    """The spans of a file; none where it cannot be read. `job`: of spans that name none (those of a trial's process).

    A line that is damaged, as a kill cuts the last one short, is left out.
    """
    found: list[Span] = []
    for span in json_lines(file):
        with suppress(DamagedFileError), decoding(file, next_step=""):
            trial, start, end = span.get("trial"), float(span["start"]), float(span["end"])
            if not (math.isfinite(start) and math.isfinite(end)):
                continue
            found.append(
                Span(
                    job=str(span.get("job", job)),
                    trial=None if trial is None else int(trial),
                    phase=str(span["phase"]),
                    start=start,
                    end=end,
                )
            )
    return found


def log(text: str) -> None:
    """Write a line with the time into the job's log (stderr); a full disk loses the line, not the worker."""
    with suppress(OSError):
        line = console_text(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}")
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - a job's log

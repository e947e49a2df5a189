"""What a worker's time went into: jobs/<id>/spans-<job>.jsonl in the study's folder. One writer a file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hpotune.config.schema.study_config import Json
from hpotune.records.trial import Span, Worker
from hpotune.workspace import heartbeat
from hpotune.workspace.folder import StudyFolder


@dataclass(kw_only=True)
class Diary:
    """A worker's account of its job. A disk that is full costs the account, never the work."""

    folder: StudyFolder
    me: Worker
    started: float
    """When the job started, in Unix seconds."""
    clock: Callable[[], float] = time.time

    def begin(self) -> None:
        """Signs that the worker lives."""
        with suppress(OSError):
            heartbeat.begin(self.folder, self.me, now=self.started)

    def beat(self) -> None:
        """Renews the sign."""
        heartbeat.beat(self.folder, self.me)

    def end(self) -> None:
        """Signs the orderly end."""
        heartbeat.end(self.folder, self.me, now=self.clock())

    def span(self, phase: str, start: float, *, trial: int | None = None) -> None:
        """Writes what went on from `start` until now."""
        span = Span(job=self.me.place, trial=trial, phase=phase, start=start, end=self.clock())
        file = self.folder.jobs / self.me.job.split("_")[0] / f"spans-{self.me.place.replace(':', '-')}.jsonl"
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(asdict(span)) + "\n")


def json_lines(path: Path) -> list[dict[str, Json]]:
    """The lines of a file of spans; one that a kill has cut short is left out."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found

"""The progress of a trial: progress.json for displays, and a line of the trial's log for each phase. Rank 0 only.

Whatever goes wrong here, such as a full disk, is ignored: no trial ends because of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from hpotune.records.progress_record import PHASE_TEXTS, PROGRESS, Phase, ProgressRecord
from hpotune.workspace.atomic_files import write_atomic

EVERY_S = 5.0
FIRST_S = 1.0
"""Steps are written after FIRST_S of a phase, then in growing intervals up to EVERY_S; a phase's start always."""
_TASK_LENGTH = 200
_LOG = 2
"""The file of the process's own error stream: lm-eval's output is discarded while it scores."""


@dataclass(kw_only=True, slots=True)
class _OpenPhase:
    name: Phase
    task: str
    started: float
    step: int | None = None
    steps: int | None = None
    first_step: int = 0


@dataclass(kw_only=True, slots=True)
class ProgressFile:
    """The writer of a trial's progress; `folder` None: nothing is written (ranks but the first, tests)."""

    folder: Path | None = None
    clock: Callable[[], float] = time.monotonic
    _phases: list[_OpenPhase] = field(default_factory=list)
    _next_write: float = 0.0

    @contextmanager
    def phase(self, name: Phase, *, task: str = "") -> Iterator[None]:
        """Show this phase during the block; afterwards the one around it."""
        if self.folder is None:
            yield
            return
        opened = _OpenPhase(name=name, task=task[:_TASK_LENGTH], started=self.clock())
        self._phases.append(opened)
        if name != "start":  # it is over when this program can write a line
            self._log(opened)
        self._write()
        try:
            yield
        finally:
            self._phases.pop()
            if self._phases:
                self._write()

    def start_steps(self, steps: int, *, first: int = 0) -> None:
        """The phase has so many steps, of which the first ones are done already."""
        if self._phases and steps > 0:
            opened = self._phases[-1]
            opened.step, opened.steps, opened.first_step = min(first, steps), steps, min(first, steps)
            opened.started = self.clock()
            self._write()

    def count(self, done: int, total: int) -> None:
        """So many steps of all are done; the first call says how many were done when the phase began."""
        if self._phases and self._phases[-1].steps != total:
            self.start_steps(total, first=done)
        self.reach(done)

    def reach(self, step: int) -> None:
        """So many steps of the phase are done."""
        if not self._phases or self._phases[-1].steps is None:
            return
        opened = self._phases[-1]
        opened.step = min(step, opened.steps or 0)
        if self.clock() >= self._next_write:
            self._write()

    def add(self, count: int) -> None:
        """So many more steps of the phase are done."""
        if self._phases:
            self.reach((self._phases[-1].step or 0) + count)

    @property
    def steps(self) -> int:
        """The steps of the phase; 0 where it has none."""
        return (self._phases[-1].steps or 0) if self._phases else 0

    def remove(self) -> None:
        """Delete the file: the trial has ended."""
        if self.folder is not None:
            with suppress(OSError):
                (self.folder / PROGRESS).unlink(missing_ok=True)

    def _write(self) -> None:
        assert self.folder is not None, "phases are opened only where it is written"
        now, opened = self.clock(), self._phases[-1]
        self._next_write = now + min(EVERY_S, max(FIRST_S, now - opened.started))
        record = ProgressRecord(
            phase=opened.name,
            task=opened.task,
            step=opened.step,
            steps=opened.steps,
            first_step=opened.first_step,
            seconds=round(max(0.0, now - opened.started), 3),
        )
        with suppress(OSError, ValueError):
            write_atomic(self.folder / PROGRESS, record.model_dump_json() + "\n")

    def _log(self, opened: _OpenPhase) -> None:
        text = " ".join(filter(None, [PHASE_TEXTS[opened.name], opened.task]))
        with suppress(OSError):
            os.write(_LOG, f"{datetime.now():%Y-%m-%d %H:%M:%S} phase: {text}\n".encode())

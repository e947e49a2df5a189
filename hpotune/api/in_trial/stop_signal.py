"""SIGTERM and Slurm's warning as a flag in the trial's process, so that it can save before it ends."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
"""What a worker sends to a trial, and what Slurm sends before it ends a job."""


@dataclass(kw_only=True)
class StopSignal:
    """Whether the process was asked to end; `take` makes it notice."""

    came: bool = False
    pid: int | None = None
    """The process that takes the signals; its children do not inherit that. None: none does yet."""

    def take(self) -> None:
        """Take the signals, once and in the main thread only; a handler that the program had is called, too."""
        if self.pid == os.getpid() or threading.current_thread() is not threading.main_thread():
            return
        self.pid = os.getpid()
        for number in SIGNALS:
            self._take(number)

    def _take(self, number: int) -> None:
        earlier = signal.getsignal(number)

        def on_signal(number: int, frame: FrameType | None) -> None:
            if (
                os.getpid() != self.pid
            ):  # a child, such as a process that loads data: it ends as it would have
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
                return
            self.came = True
            if callable(earlier):
                earlier(number, frame)

        signal.signal(number, on_signal)

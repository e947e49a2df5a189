"""One process (or one launcher of ranks) of a trial: started, logged, signalled, waited for, never left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAUSE = signal.SIGUSR2
"""What Slurm sends before it ends a job, what a trial checkpoints on."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a process ended."""

    code: int
    """0, the exit status, or minus the signal that killed it."""

    @property
    def words(self) -> str:
        """`was killed by SIGKILL`, `ended with exit code 1`."""
        if self.code < 0:
            return f"was killed by {signal.Signals(-self.code).name}"
        if self.code > 128 and self.code - 128 in signal.Signals._value2member_map_:
            return f"was killed by {signal.Signals(self.code - 128).name}"
        return f"ended with exit code {self.code}"

    @property
    def killed(self) -> bool:
        """Whether a signal ended it, its own or one a launcher passed on."""
        return self.code < 0 or self.code in (128 + signal.SIGKILL, 128 + signal.SIGTERM)


@dataclass(kw_only=True)
class Stop:
    """The wish that a worker ends: set from a signal handler, passed on to the process that runs now."""

    signal: int | None = None
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def listen(self) -> None:
        """Takes SIGTERM, SIGINT and the warning signal of Slurm as the wish to stop."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, PAUSE):
                signal.signal(number, self._asked)

    def go_deaf(self) -> None:
        """From here on the warning means nothing: a worker that is done must not end as if it had been killed."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(PAUSE, signal.SIG_IGN)

    def _asked(self, number: int, _: object) -> None:
        self.signal = number
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(PAUSE if number == PAUSE else signal.SIGTERM)


def run(
    command: Sequence[str], *, folder: Path, env: Mapping[str, str], cwd: Path | None, stop: Stop
) -> Ended:
    """Runs one command to its end, its output appended to the trial's log.txt.

    It dies with this process, even by kill -9: a trial without a worker would burn a GPU for nobody.
    """
    with (folder / "log.txt").open("ab") as log:
        child = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=dict(env), cwd=cwd,
            start_new_session=True, preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )  # fmt: skip
        stop.child = child
        try:
            return Ended(code=child.wait())
        finally:
            stop.child = None
            _end_group(child.pid)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_group(group: int) -> None:
    """Ends what the process left running in its session: ranks of a launcher that was killed."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def tail(folder: Path, *, lines: int = 20) -> list[str]:
    """The last lines of a trial's log."""
    try:
        text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]

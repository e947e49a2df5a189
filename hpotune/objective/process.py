"""One process (or one launcher of ranks) of a trial: started, logged, signalled, waited for, never left behind.

All that it starts inherits a mark in its environment, by which it is found in /proc whatever session it went to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

from hpotune.workspace.trial_log import AGAIN

PAUSE = signal.SIGUSR2
"""What Slurm sends before it ends a job, what a trial checkpoints on."""
CHECKPOINT_S = 30
"""How long what a trial started may go on after it was asked to end."""
MARK = "HPOTUNE_PROCESS"

# Reads a line when all is over, or the end of its input when the worker died, even by kill -9: a trial without a
# worker would burn a GPU for nobody.
_WATCHDOG = """
trap '' TERM INT HUP USR2  # Slurm signals every process of a cancelled job; this one must see the end of all others
read -r _ && exit 0
ours() { grep -slaF "$0" /proc/[0-9]*/environ | cut -d/ -f3; }
kill -TERM $(ours)
for _ in 1 2 3 4 5 6 7 8 9 10; do
  sleep 1
  [ -n "$(ours)" ] || exit 0
done
kill -KILL $(ours)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a process ended."""

    code: int
    """0, the exit status, or minus the signal that killed it."""
    log_start: int = 0
    """Bytes that the log held before: what earlier attempts wrote."""

    @property
    def words(self) -> str:
        """`was killed by SIGKILL`, `ended with exit code 1`."""
        if self.code < 0:
            return f"was killed by {Signals(-self.code).name}"
        if self.code > 128 and self.code - 128 in Signals._value2member_map_:
            return f"was killed by {Signals(self.code - 128).name}"
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
    warning: Signals | None = None
    """What the child is told; None: SIGTERM to all of its process group."""

    def listen(self) -> None:
        """Takes SIGTERM, SIGINT and the warning signal of Slurm as the wish to stop."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, PAUSE):
                signal.signal(number, self._asked)

    def go_deaf(self) -> None:
        """From here on the warning means nothing: a worker that is done must not end as if it had been killed."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(PAUSE, signal.SIG_IGN)

    def begin(self, child: subprocess.Popen[bytes], *, warning: Signals | None) -> None:
        """From here on the wish is passed on to this process; at once when it has been uttered already."""
        self.child, self.warning = child, warning
        if self.signal is not None:
            self._pass_on()

    def ask(self, number: int) -> None:
        """Utters the wish, as if the signal had come. That the cluster takes the job stays the reason."""
        self.signal = self.signal if self.signal == PAUSE else number
        self._pass_on()

    def abandon(self, *, kill: bool = False) -> None:
        """Ends what runs now, without the wish that the worker ends; `kill`: where it did not listen."""
        if kill and self.child is not None and self.child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            return
        self._pass_on()

    def _asked(self, number: int, _: object) -> None:
        self.ask(number)

    def _pass_on(self) -> None:
        if self.child is None or self.child.poll() is not None:
            return
        if self.warning is not None:
            self.child.send_signal(self.warning)
            return
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGTERM)


def run(
    command: Sequence[str],
    *,
    folder: Path,
    env: Mapping[str, str],
    cwd: Path | None,
    stop: Stop,
    warning: Signals | None = None,
) -> Ended:
    """Runs one command to its end, its output appended to the trial's log.txt; nothing it started outlives it."""
    mark = f"{MARK}={uuid.uuid4().hex}"
    with (folder / "log.txt").open("ab") as log, _watchdog(mark) as over:
        if log.tell():
            log.write(f"{AGAIN}\n".encode())
            log.flush()
        log_start = log.tell()
        try:
            child = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=cwd,
                env={**env, MARK: mark.partition("=")[2]}, start_new_session=True,
            )  # fmt: skip
            stop.begin(child, warning=warning)
            return Ended(code=child.wait(), log_start=log_start)
        finally:
            stop.child = None
            _end_all(mark, patience_s=CHECKPOINT_S if stop.signal is not None else 0)
            assert over.stdin is not None, "opened with a pipe"
            with suppress(BrokenPipeError):
                over.stdin.write(b"over\n")
                over.stdin.flush()


def _watchdog(mark: str) -> subprocess.Popen[bytes]:
    """A shell that ends all that bears the mark when this process dies."""
    return subprocess.Popen(
        ["sh", "-c", _WATCHDOG, mark], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def _end_all(mark: str, *, patience_s: float) -> None:
    """Kills what a trial left running: ranks of a launcher that was killed, a program behind a shell."""
    until = time.monotonic() + patience_s
    while marked(mark) and time.monotonic() < until:
        time.sleep(0.2)
    for _ in range(2):  # a process that is just being started shows no environment for a moment
        for pid in marked(mark):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def marked(mark: str) -> list[int]:
    """Processes whose environment holds the mark, zombies left out."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in file.read_bytes():
                found.append(int(file.parent.name))
    return found


def tail(folder: Path, *, log_start: int, lines: int = 20) -> list[str]:
    """The last lines of a trial's log that stand behind its first `log_start` bytes."""
    try:
        with (folder / "log.txt").open("rb") as log:
            log.seek(log_start)
            text = log.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]

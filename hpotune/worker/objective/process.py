"""One process (or launcher) of a trial: start it, log it, signal it, and end it with all its child processes.

Its descendants inherit a mark in their environment, by which they are found in /proc in whatever session they run.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import BinaryIO, Protocol

from hpotune.workspace.atomic_files import open_append
from hpotune.workspace.folder import NEW_ATTEMPT_LINE

PAUSE_SIGNAL = signal.SIGUSR2
"""What Slurm sends before it ends a job; a trial writes a checkpoint on it and ends."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, PAUSE_SIGNAL)
"""What a worker takes as a request to stop."""
CHECKPOINT_S = 30
"""How long a trial's processes may run on after they were asked to end."""
MARK = "HPOTUNE_PROCESS"

# Reads a line when the trial has ended, or the end of its input when the worker was killed, even by kill -9: the
# processes of a trial without a worker would hold a GPU for nothing.
_WATCHDOG = """
trap '' TERM INT HUP USR2  # Slurm signals every process of a cancelled job; this one must outlast all others
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
class ProcessExit:
    """How a process ended."""

    code: int
    """0, the exit status, or minus the signal that killed it."""
    log_start: int = 0
    """Size of the log before, in bytes: what earlier attempts wrote."""

    @property
    def words(self) -> str:
        """`was killed by SIGKILL`, `ended with exit code 1`."""
        if self.code < 0:
            return f"was killed by {Signals(-self.code).name}"
        if self.code > 128 and self.code - 128 in Signals._value2member_map_:
            return f"was killed by {Signals(self.code - 128).name}"
        return f"ended with exit code {self.code}"

    @property
    def asked_to_stop(self) -> bool:
        """Whether a signal ended it that asks processes to stop."""
        return self.code in {code for one in STOP_SIGNALS for code in (-one, 128 + one)}

    @property
    def killed(self) -> bool:
        """Whether a signal ended it, sent to it or reported by a launcher as an exit code."""
        return self.code < 0 or self.code in (128 + signal.SIGKILL, 128 + signal.SIGTERM)


def end_with_stdin() -> None:
    """End this worker once its standard input is closed: the process that started it has gone, perhaps by kill -9.

    It is asked by SIGTERM first, so that its trial writes a checkpoint and waits again.
    """

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2 * CHECKPOINT_S)
        os.kill(os.getpid(), signal.SIGKILL)  # its trial has a watchdog of its own

    threading.Thread(target=wait, daemon=True).start()


class TrialProcess(Protocol):
    """The first process of a trial, of which a session may consist; a Popen is one."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """None while it runs."""


@dataclass(kw_only=True)
class StopRequest:
    """Whether the worker is to stop, set by a signal handler, and the forwarding of that to the trial's process."""

    signal: int | None = None
    """The signal that asked for it; None: nothing has."""
    since: float | None = None
    """When the first one came, by time.monotonic; None: none has."""
    child: TrialProcess | None = field(default=None, repr=False)
    warning: Signals | None = None
    """The signal that is sent to the process; None: SIGTERM to its whole process group."""

    def handle_signals(self) -> None:
        """Take SIGTERM, SIGINT and the warning signal of Slurm as requests to stop. Only in the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                signal.signal(number, self._on_signal)

    def ignore_pause_signal(self) -> None:
        """Ignore the warning signal of Slurm: a worker that has finished must not end as if it had been killed."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(PAUSE_SIGNAL, signal.SIG_IGN)

    def await_signal(self, seconds: float) -> bool:
        """Whether a signal asks to stop, or does so in the next seconds.

        Slurm signals all processes of a job: a trial's may end of it before the worker has taken its own.
        """
        until = time.monotonic() + seconds
        while self.signal is None and time.monotonic() < until:
            time.sleep(0.01)
        return self.signal is not None

    def attach(self, child: TrialProcess, *, warning: Signals | None) -> None:
        """Forward requests to this process; at once if one has come already."""
        self.child, self.warning = child, warning
        if self.signal is not None:
            self._forward()

    def request(self, number: int) -> None:
        """Request a stop as if the signal had come; an earlier PAUSE_SIGNAL stays the reason."""
        self.since = time.monotonic() if self.since is None else self.since
        self.signal = self.signal if self.signal == PAUSE_SIGNAL else number
        self._forward()

    def end_process(self, *, kill: bool = False) -> None:
        """End the trial's process without stopping the worker; `kill`: by SIGKILL, if it ignored the first request."""
        if kill and self.child is not None and self.child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            return
        self._forward()

    def _on_signal(self, number: int, _: object) -> None:
        self.request(number)

    def _forward(self) -> None:
        if self.child is None or self.child.poll() is not None:
            return
        if self.warning is not None:
            with suppress(ProcessLookupError):
                os.kill(self.child.pid, self.warning)
            return
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGTERM)


def run_process(
    command: Sequence[str],
    *,
    folder: Path,
    env: Mapping[str, str],
    cwd: Path | None,
    stop: StopRequest,
    warning: Signals | None = None,
) -> ProcessExit:
    """Run a command to its end, its output appended to the trial's log.txt; all that it started is ended with it."""
    mark = f"{MARK}={uuid.uuid4().hex}"
    with open_append(folder / "log.txt") as log, start_watchdog(mark) as watchdog:
        log_start = begin_attempt(log)
        try:
            child = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=cwd,
                env={**env, MARK: mark.partition("=")[2]}, start_new_session=True,
            )  # fmt: skip
            stop.attach(child, warning=warning)
            return ProcessExit(code=child.wait(), log_start=log_start)
        finally:
            stop.child = None
            end_all(mark, patience_s=CHECKPOINT_S if stop.signal is not None else 0)
            delete_caches(mark, env)
            end_watchdog(watchdog)


def begin_attempt(log: BinaryIO) -> int:
    """Separate the attempt that begins from earlier ones in the trial's log; returns the size of the log."""
    if log.tell():
        log.write(f"{NEW_ATTEMPT_LINE}\n".encode())
        log.flush()
    return log.tell()


def end_watchdog(watchdog: subprocess.Popen[bytes]) -> None:
    """Tell the shell that there is nothing left to end."""
    assert watchdog.stdin is not None, "opened with a pipe"
    with suppress(BrokenPipeError):
        watchdog.stdin.write(b"over\n")
        watchdog.stdin.flush()


def start_watchdog(mark: str) -> subprocess.Popen[bytes]:
    """Start a shell that ends all processes with the mark when this process is killed."""
    return subprocess.Popen(
        ["sh", "-c", _WATCHDOG, mark], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def end_all(mark: str, *, patience_s: float) -> None:
    """Kill what a trial left running after `patience_s`: ranks of a killed launcher, a program started by a shell."""
    until = time.monotonic() + patience_s
    while marked_processes(mark) and time.monotonic() < until:
        time.sleep(0.2)
    for _ in range(2):  # a process that is just starting has no environment in /proc for a moment
        for pid in marked_processes(mark):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def delete_caches(mark: str, env: Mapping[str, str]) -> None:
    """Delete the datasets caches of processes that were killed (finetune/model/hub.py); the others have done so.

    `env`: of the processes. Only on this node.
    """
    parent = Path(env.get("SLURM_TMPDIR") or env.get("TMPDIR") or tempfile.gettempdir())
    for folder in parent.glob(f"hpotune-datasets-{mark.partition('=')[2]}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def marked_processes(mark: str) -> list[int]:
    """Ids of the processes whose environment holds the mark, without zombies."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in file.read_bytes():
                found.append(int(file.parent.name))
    return found


def log_tail(folder: Path, *, log_start: int, lines: int = 20) -> list[str]:
    """The last lines of a trial's log after its first `log_start` bytes, empty ones left out."""
    try:
        with (folder / "log.txt").open("rb") as log:
            log.seek(log_start)
            text = log.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]

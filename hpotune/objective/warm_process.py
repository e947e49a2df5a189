"""The process of a trial that stays for the next trials: `python -m hpotune.finetune --serve`, driven by a socket.

What is said on the socket is in hpotune/finetune/warm/server.py. Like every process of a trial it has a watchdog, and
all that it started ends with it.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hpotune.objective.process import (
    CHECKPOINT_S,
    MARK,
    PAUSE_SIGNAL,
    ProcessExit,
    StopRequest,
    begin_attempt,
    end_all,
    end_watchdog,
    marked_processes,
    start_watchdog,
)
from hpotune.workspace.atomic_files import open_append

POLL_S = 1.0
"""How often it is checked whether the process has ended without closing its socket, which its children may hold."""
END_S = 5.0
"""How long an idle process may take to end."""


class WarmProcess:
    """One process, from its start for a first trial to its end."""

    def __init__(
        self, command: Sequence[str], *, log_folder: Path, env: Mapping[str, str], stop: StopRequest
    ) -> None:
        self._mark, self._stop, self._ended = f"{MARK}={uuid.uuid4().hex}", stop, False
        self._received = b""
        self._socket, theirs = socket.socketpair()
        self._watchdog = start_watchdog(self._mark)
        try:
            with theirs, open_append(log_folder / "log.txt") as log:
                self._log_start = begin_attempt(log)
                self._child = subprocess.Popen(
                    command, stdout=log, stderr=subprocess.STDOUT, stdin=theirs.fileno(),
                    env=self._own_env(env), start_new_session=True,
                )  # fmt: skip
        except OSError:
            self._socket.close()
            with self._watchdog:
                end_watchdog(self._watchdog)
            raise

    def is_idle(self) -> bool:
        """Whether it waits for a trial."""
        return not self._ended and self._child.poll() is None

    def run_first(self, spec: Path, env: Mapping[str, str]) -> ProcessExit:
        """Run the trial for which the process was started; returns its exit."""
        self._run(spec, env)
        return self._exit()

    def run(self, spec: Path, env: Mapping[str, str]) -> ProcessExit | None:
        """Run the trial of the spec; returns its exit, or None if it was not started and needs a new process."""
        with open_append(spec.parent / "log.txt") as log:
            self._log_start = begin_attempt(log)
        return self._exit() if self._run(spec, env) else None

    def _run(self, spec: Path, env: Mapping[str, str]) -> bool:
        """Run the trial to its end; returns whether it was started.

        The process ends with the trial, but for a trial that finished and left nothing behind.
        """
        self._stop.attach(self._child, warning=PAUSE_SIGNAL)
        try:
            order = json.dumps({"spec": str(spec), "env": self._own_env(env)})
            with suppress(BrokenPipeError, ConnectionResetError):
                self._socket.sendall(f"{order}\n".encode())
            started = self._answer() == "started"
            kept = started and self._answer() == "kept"
            if not kept:
                self._child.wait()
        finally:
            self._stop.child = None
        left_running = set(marked_processes(self._mark)) - {
            self._child.pid
        }  # programs that the trial started
        if not kept or left_running:
            self.end()
        return started

    def _exit(self) -> ProcessExit:
        """The exit of the trial: that of the process, or 0 if it goes on."""
        return ProcessExit(code=self._child.returncode or 0, log_start=self._log_start)

    def end(self) -> None:
        """End the process and all that it started; an idle one by closing its socket."""
        if self._ended:
            return
        self._ended = True
        self._socket.close()
        if self._stop.signal is None:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(END_S)
        end_all(self._mark, patience_s=CHECKPOINT_S if self._stop.signal is not None else 0)
        self._child.wait()
        with self._watchdog:
            end_watchdog(self._watchdog)

    def _own_env(self, env: Mapping[str, str]) -> dict[str, str]:
        return {**env, MARK: self._mark.partition("=")[2]}

    def _answer(self) -> str:
        """The next line that it answers; empty if it ended."""
        while b"\n" not in self._received:
            ended = self._child.poll() is not None
            if not select.select([self._socket], [], [], 0 if ended else POLL_S)[0]:
                if ended:
                    return ""
                continue
            part = b""
            with suppress(ConnectionResetError):
                part = self._socket.recv(4096)
            if not part:
                return ""
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

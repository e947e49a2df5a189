"""The worker's end of function_server.py, which forks a process for each trial of a function.

A new interpreter takes longer than a tiny trial; a fork of one takes milliseconds and has nothing of an earlier trial
in it. Like every process of a trial the server has a watchdog, and ends with all that was started.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

from hpotune.worker.objective.process import (
    CHECKPOINT_S,
    MARK,
    ProcessExit,
    StopRequest,
    begin_attempt,
    delete_caches,
    end_all,
    end_watchdog,
    marked_processes,
    start_watchdog,
)
from hpotune.workspace.atomic_files import open_append

END_S = 10.0
"""How long the server may take to end once its socket is closed, and what trials left with it."""
OWN_PREFIX = "HPOTUNE_"
"""Beginning of the variables that differ between the trials of a study."""


@dataclass(kw_only=True, slots=True)
class ForkedProcess:
    """A trial's process: a child of the server."""

    pid: int
    ended: bool = False

    def poll(self) -> int | None:
        """None while it runs."""
        return 0 if self.ended else None


class ForkServer:
    """A server from its start, with the environment of a first trial, to its end.

    Raises: OSError where it cannot be started.
    """

    def __init__(self, *, folder: Path, env: Mapping[str, str], stop: StopRequest) -> None:
        """`folder`: of the first trial; the server writes its own errors into that trial's log."""
        self._stop, self._ended, self._env = stop, False, dict(env)
        self._mark = f"{MARK}={uuid.uuid4().hex}"
        self._orders, theirs = socket.socketpair()
        with theirs, open_append(folder / "log.txt") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "hpotune.worker.objective.function_server", str(theirs.fileno())],
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=folder,
                env=self._with_mark(env), pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        self._watchdog = start_watchdog(self._mark)
        self._answers = self._orders.makefile("r", encoding="utf-8")

    def serves(self, env: Mapping[str, str]) -> bool:
        """Whether it runs, with the environment of this trial but for what differs between trials."""
        return not self._ended and self._server.poll() is None and _of_study(env) == _of_study(self._env)

    def run(self, spec: Path, env: Mapping[str, str]) -> ProcessExit | None:
        """Run the trial of a spec to its end, with all that it starts; None: it was not started."""
        with open_append(spec.parent / "log.txt") as log:
            log_start = begin_attempt(log)
        order = {"spec": str(spec), "env": self._with_mark(env)}
        with suppress(ConnectionError):  # found by the missing answer
            self._orders.sendall(f"{json.dumps(order)}\n".encode())
        started, pid = self._answer()
        if started != "started":
            self.end()
            return None
        process = ForkedProcess(pid=int(pid))
        self._stop.attach(process, warning=None)
        try:
            ended, rest = self._answer()
        finally:
            process.ended = True
            self._stop.child = None
        code, _, left = rest.partition(" ")
        if ended != "ended" or left == "left":
            self.end()
        return ProcessExit(code=int(code) if ended == "ended" else -SIGKILL, log_start=log_start)

    def end(self) -> None:
        """End the server and what trials left running, after a while if the worker was asked to stop."""
        if self._ended:
            return
        self._ended = True
        until = time.monotonic() + (CHECKPOINT_S if self._stop.signal is not None else 0)
        while time.monotonic() < until and {*marked_processes(self._mark)} - {self._server.pid}:
            time.sleep(0.2)
        self._answers.close()
        self._orders.close()
        with suppress(subprocess.TimeoutExpired):
            self._server.wait(END_S)
        end_all(self._mark, patience_s=0)
        self._server.wait()
        delete_caches(self._mark, self._env)
        with self._watchdog:
            end_watchdog(self._watchdog)

    def _answer(self) -> tuple[str, str]:
        """The first word of the next answer and the others; empty if the server has ended."""
        line = ""
        with suppress(ConnectionError):
            line = self._answers.readline()
        word, _, rest = line.strip().partition(" ")
        return word, rest

    def _with_mark(self, env: Mapping[str, str]) -> dict[str, str]:
        return {**env, MARK: self._mark.partition("=")[2]}


def _of_study(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.startswith(OWN_PREFIX)}

"""`python -m hpotune.worker.objective.function_server SOCKET`: fork a process for each trial of a function.

It has imported what function_process.py needs and nothing of the user's, so its forks begin as a new interpreter does,
without the start of one. The worker's end is fork_server.py; on the socket (a file descriptor) it sends one line of
JSON a trial, {"spec": PATH, "env": {...}}. The answers:

    started PID        the process of the trial, which leads a session of its own
    ended CODE clear   it ended, with all that it started; CODE is minus the signal that killed it
    ended CODE left    it ended, and processes that it started run on

It ends, and kills those, when the socket is closed.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from hpotune.worker.objective import function_process
from hpotune.workspace.atomic_files import open_append

JOB_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Slurm sends these to all processes of a job. They are for the trial's process: the server outlives it."""
SEVERAL_THREADS = 78
"""Exit code of a server whose interpreter has threads (a start-up file of the user's may start them): their locks would
be copied in any state."""
_PR_SET_CHILD_SUBREAPER = 36
_LEFT_S = 0.2
"""How long what a trial started may take to notice the trial's end, such as the trackers of multiprocessing."""
_END_S = 5.0
"""How long killed processes may take to end."""


def main(descriptor: int) -> int:
    """Run trials until the worker closes the socket; returns the exit code. In a fork, that of the trial."""
    if sys.path and Path(sys.path[0] or os.curdir).resolve() == Path.cwd():
        del sys.path[0]  # of -m: the folder of the first trial
    os.chdir("/")  # which may be deleted meanwhile
    if len(os.listdir("/proc/self/task")) > 1:
        return SEVERAL_THREADS
    # what a trial leaves behind becomes a child of this process, whatever session and environment it has
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in JOB_SIGNALS}
    # where the worker was started with it ignored, there would be no exit codes
    handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    gc.collect()
    gc.freeze()  # no collection of a fork touches, and so copies, these pages
    with socket.socket(fileno=descriptor) as worker, worker.makefile("r", encoding="utf-8") as orders:
        while line := _next_line(orders):
            order = json.loads(line)
            # none of the trial's signals is lost before it can take them
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, JOB_SIGNALS)
            if (pid := os.fork()) == 0:
                orders.close()
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                return _trial(order, worker, blocked=blocked)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            code = _exit_code(pid)
            answer = f"ended {code} {'left' if _anything_left() else 'clear'}\n"
            with suppress(ConnectionError):  # the worker was killed: the next line is the end
                worker.sendall(answer.encode())
    _end_children()
    return 0


def _next_line(orders: TextIO) -> str:
    """Empty once the worker has closed the socket, or was killed before it had read all answers."""
    with suppress(ConnectionError):
        return orders.readline()
    return ""


def _trial(order: dict[str, Any], worker: socket.socket, *, blocked: Collection[int]) -> int:
    """Become a trial's process: its own session, log, environment and folder. Returns the exit code.

    `blocked`: the signals that the server was started with blocked, as the trial is.
    """
    os.setsid()
    with worker:
        try:
            worker.sendall(f"started {os.getpid()}\n".encode())
        except ConnectionError:  # the worker was killed
            return os.EX_TEMPFAIL
    spec = Path(order["spec"])
    with open_append(spec.parent / "log.txt") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    _change_environment(order["env"])
    os.chdir(spec.parent)
    sys.argv = [function_process.__file__, str(spec)]
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return function_process.main(str(spec))


def _change_environment(env: Mapping[str, str]) -> None:
    """Make it this process's environment, by the differences only.

    setproctitle, which many libraries call, finds the command line in memory by the first variable, as exec left it.
    """
    for name in os.environ.keys() - env.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in env.items() if os.environ.get(name) != value})


def _exit_code(pid: int) -> int:
    """Wait for the trial's process, and reap what else ends meanwhile; minus a signal as in subprocess."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def _anything_left() -> bool:
    """Whether a process runs on that a trial started."""
    until = time.monotonic() + _LEFT_S
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if not ended:
            if time.monotonic() > until:
                return True
            time.sleep(0.002)


def _end_children() -> None:
    """Kill what trials left, until there is none: the children of a process that ends become this one's."""
    until = time.monotonic() + _END_S
    while time.monotonic() < until:
        for pid in _children():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        time.sleep(0.002)


def _children() -> list[int]:
    """Ids of the children of this process."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended
            # its program's name, which may hold anything, is in the last brackets; state and parent follow
            _, parent, *_ = file.read_bytes().rpartition(b")")[2].split()
            if int(parent) == os.getpid():
                found.append(int(file.parent.name))
    return found


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

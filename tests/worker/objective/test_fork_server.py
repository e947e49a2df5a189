"""Trials of a function as forks of one server: each as in a new interpreter, and nothing of one in the next."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from hpotune.worker.objective.interface import write_spec
from hpotune.worker.objective.process import StopRequest
from tests.worker.objective.conftest import opened


def values(tmp_path: Path, body: str, trials: int = 2, **others) -> list[float | None]:
    """The value of each trial, x = 0, 1, ..., in one worker."""
    points = [{"x": float(number)} for number in range(trials)]
    with opened(tmp_path, None, body, points, **others) as (run, specs):
        return [result.values[0] if result.values else None for result in run(specs)]


def test_trials_are_forks_of_one_server(tmp_path):
    parents = values(tmp_path, "import os; return os.getppid()")
    assert parents[0] == parents[1] != os.getpid()
    first, second = values(tmp_path, "import os; return os.getpid()")
    assert first != second


FIRST_VARIABLE = """import ctypes
    from pathlib import Path
    first = ctypes.POINTER(ctypes.c_void_p).in_dll(ctypes.CDLL(None), 'environ')[0]
    place = Path('/proc/self/stat').read_text().rpartition(')')[2].split()[47]  # env_start
    return float(first == int(place))"""
"""setproctitle looks for the command line in front of the first variable, where exec put both."""


def test_warm_false_starts_new_interpreters(tmp_path):
    assert values(tmp_path, "import os; return os.getppid()", warm=False) == [os.getpid()] * 2


@pytest.mark.parametrize(
    "body",
    [
        "import builtins; builtins.count = getattr(builtins, 'count', 0) + 1; return builtins.count",
        "import sys; sys.path.append('a'); return sys.path.count('a')",
        "import os; os.environ['A'] = os.environ.get('A', '') + '1'; return float(os.environ['A'])",
        "import os; os.chdir('/'); return 1.0",
        "import signal; return float(signal.signal(signal.SIGTERM, signal.SIG_IGN) is signal.SIG_DFL)",
        "import signal; return float(signal.signal(signal.SIGUSR2, signal.SIG_IGN) is signal.SIG_DFL)",
        "import signal; return float(signal.getsignal(signal.SIGINT) is signal.default_int_handler)",
        "import signal; return 1.0 - len(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}))",
        "import os; return 1.0 + (os.getsid(0) != os.getpid()) + (os.getpgrp() != os.getpid())",
        "import os, sys; return float(len([n for n in os.listdir('/proc/self/fd') if int(n) > 2]))",  # of listdir
        "import sys; return float(sys.stdin.read() == '')",
        "import os; return float(os.environ['HPOTUNE_TRIAL_DIR'].endswith(os.environ['HPOTUNE_TRIAL']))",
        FIRST_VARIABLE,
    ],
)
def test_trial_begins_like_a_new_interpreter(tmp_path, body):
    first, second = values(tmp_path, body)
    assert first == second
    assert [first, second] == values(tmp_path, body, warm=False)


def test_random_numbers_differ(tmp_path):
    first, second = values(tmp_path, "import random; return random.random()")
    assert first != second


@pytest.mark.parametrize(
    "body",
    [
        "import atexit; atexit.register(print, 'at exit'); return x",
        "import threading, time; threading.Thread(target=lambda: (time.sleep(.3), print('late'))).start(); return x",
        "print('no end', end=''); import sys; sys.exit('why')",
        "import os; os.execvp('sh', ['sh', '-c', 'echo in another program; exit 5'])",
        "import os; os.kill(os.getpid(), 11)",
        "raise KeyboardInterrupt",
        "raise ValueError('a')",
        "import sys; print(len(sys.argv), sys.argv[1][-9:]); return x",
        "import multiprocessing as m; p = m.get_context('spawn').Pool(2); print(p.map(abs, [-1])); return x",
    ],
)
def test_results_equal_those_of_new_interpreters(evaluate, tmp_path, body):
    found = []
    for warm in (True, False):
        result = evaluate(function=body, params={"x": 0.5}, warm=warm)
        log = tmp_path / "trial" / "log.txt"
        lines = [line for line in log.read_text().splitlines() if not line.startswith("  ")]  # of a traceback
        found.append((result, lines))
        log.unlink()
    assert found[0] == found[1]


def test_each_trial_has_its_log(tmp_path):
    values(tmp_path, "import os; print('of', x); os.system('echo by a shell'); return x")
    logs = [(tmp_path / f"trial{number}" / "log.txt").read_text() for number in (3, 4)]
    assert logs == ["of 0.0\nby a shell\n", "of 1.0\nby a shell\n"]


LEAVES = """import os, time
    parent = os.getppid()
    if x == 0 and os.fork() == 0:  # a daemon, whose environment says nothing
        os.setsid()
        if os.fork() == 0:
            os.execve('/bin/sleep', ['sleep', '300'], {{{env}}})
        os._exit(0)
    time.sleep(.3)
    return parent"""


@pytest.mark.parametrize("env", ["", "**os.environ"])
def test_what_a_trial_left_is_ended(tmp_path, env):
    points = [{"x": 0.0}, {"x": 1.0}]
    with opened(tmp_path, None, LEAVES.format(env=env), points) as (run, specs):
        (first,) = run(specs[:1])
        assert sleeping(tmp_path) == []
        (second,) = run(specs[1:])
    assert first.values != second.values, "the server of the first has ended with what was left"


def sleeping(tmp_path: Path) -> list[int]:
    """Ids of the processes that trials of this test left."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended
            is_sleep = (folder / "cmdline").read_bytes() == b"sleep\x00300\x00"
            if is_sleep and (folder / "cwd").readlink().is_relative_to(tmp_path):
                found.append(int(folder.name))
    return found


def test_killed_server_kills_its_trial(tmp_path):
    body = "import os, time; x or os.kill(os.getppid(), 9); x or time.sleep(300); return x"
    with opened(tmp_path, None, body, [{"x": 0.0}, {"x": 1.0}]) as (run, specs):
        first, second = run(specs)
    assert first.failure is not None
    assert first.failure.cause == "killed"
    assert second.values == [1.0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP])
def test_signals_of_jobs_spare_the_server(tmp_path, number):
    body = f"import os, time; x or os.kill(os.getppid(), {int(number)}); time.sleep(.1); return os.getppid()"
    first, second = values(tmp_path, body)
    assert first == second


def test_stopped_trial_may_write_a_checkpoint(tmp_path, request_stop):
    """A program that the function started gets its time, after the function's own end."""
    body = """import os, subprocess
    own = 'trap "sleep 1; echo saved >saved; exit" TERM; touch ready; while :; do sleep .1; done'
    subprocess.run(['sh', '-c', own])"""
    stop = StopRequest()
    asking = request_stop(stop, tmp_path / "home" / "ready")
    with opened(tmp_path, None, body, [{"x": 0.0}], stop=stop) as (run, specs):
        assert run(specs)[0].state == "paused"
    asking.join()
    assert (tmp_path / "home" / "saved").read_text() == "saved\n"


def test_other_environment_gets_another_server(tmp_path, monkeypatch):
    """A worker's environment may be changed by its program; Python reads some variables when it starts."""
    points = [{"x": 0.0}, {"x": 1.0}]
    with opened(tmp_path, None, "import os; return os.getppid()", points) as (run, specs):
        (first,) = run(specs[:1])
        monkeypatch.setenv("PYTHONHASHSEED", "7")
        (second,) = run(specs[1:])
    assert first.values != second.values


def test_interpreter_with_threads_is_not_forked(tmp_path, monkeypatch):
    (tmp_path / "start").mkdir()
    text = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    (tmp_path / "start" / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "start"), *sys.path]))
    assert values(tmp_path, "import os; return os.getppid()") == [os.getpid()] * 2


def test_signals_stay_blocked_or_ignored(tmp_path):
    """What a process is started with, whoever started the worker."""
    body = "import signal as s; return 2.0 * (s.SIGTERM in s.pthread_sigmask(0, [])) + s.getsignal(s.SIGCHLD).value"
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    handler = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert values(tmp_path, body) == [2.0 + signal.SIG_IGN.value] * 2
        assert (tmp_path / "trial3" / "log.txt").read_text() == ""
    finally:
        signal.signal(signal.SIGCHLD, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def test_server_gives_no_warnings(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    assert values(tmp_path, "return x") == [0.0, 1.0]
    assert (tmp_path / "trial3" / "log.txt").read_text() == ""


def test_unread_answers_end_the_server_cleanly(tmp_path, until):
    """A worker that is killed leaves answers in its socket; what its trial left is ended all the same."""
    with opened(tmp_path, None, LEAVES.format(env=""), [{"x": 0.0}]) as (_, (spec,)):
        file = write_spec(spec)
    log = tmp_path / "server.log"
    worker, theirs = socket.socketpair()
    with worker, theirs, log.open("wb") as output:
        command = [sys.executable, "-m", "hpotune.worker.objective.function_server", str(theirs.fileno())]
        server = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=output, stderr=output)
        order = {"spec": str(file), "env": dict(os.environ)}
        worker.sendall(f"{json.dumps(order)}\n".encode())
        assert until(lambda: b"ended" in worker.recv(1000, socket.MSG_PEEK))
        assert sleeping(tmp_path) != []
    assert server.wait(20) == 0
    assert log.read_text() == ""
    assert sleeping(tmp_path) == []


def test_idle_server_ends_on_a_stop(tmp_path):
    """A stop that comes while no trial runs ends the server with the objective."""
    stop = StopRequest()
    with opened(tmp_path, None, "import os; return os.getppid()", [{"x": 0.0}], stop=stop) as (run, specs):
        (server,) = run(specs)[0].values
        threading.Thread(target=stop.request, args=(signal.SIGTERM,)).start()
    since = time.monotonic()
    while Path(f"/proc/{int(server)}").exists() and time.monotonic() < since + 10:
        time.sleep(0.05)
    assert not Path(f"/proc/{int(server)}").exists()


@pytest.mark.parametrize(
    "body",
    ["os.kill(os.getpid(), 12)", "os.kill(os.getpid(), 15)", "sys.exit(1)", "signal.raise_signal(2)"],
)
def test_later_signal_of_worker_counts(tmp_path, body, request_stop):
    """Slurm signals all processes of a job; the trial may end of it before the worker takes its signal."""
    stop = StopRequest()
    asking = request_stop(stop, tmp_path / "home" / "ready", signal.SIGUSR2)
    own = f"import os, signal, sys; open('ready', 'w').close(); {body}"
    with opened(tmp_path, None, own, [{"x": 0.0}], stop=stop) as (run, specs):
        assert run(specs)[0].state == "paused"
    asking.join()

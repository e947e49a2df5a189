"""A Python function as the objective, called in a process of its own: `python: file.py:function`.

The process is function_process.py: a fork of a server (fork_server.py), or a new interpreter.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from hpotune.config.schema.warm_trials import why_cold
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.worker.objective.fork_server import ForkServer
from hpotune.worker.objective.interface import (
    Evaluate,
    TrialContext,
    in_container,
    one_process_each,
    read_result,
    result_of_pause,
    trial_env,
    write_spec,
)
from hpotune.worker.objective.process import ProcessExit, run_process


def open_function(context: TrialContext) -> AbstractContextManager[Evaluate]:
    """The objective that calls the function once a trial, in a process of its own, in the folder of the study file."""
    if why_cold(context.config) is None:
        return _forks(context)
    return one_process_each(_evaluate, context)


@contextmanager
def _forks(context: TrialContext) -> Iterator[Evaluate]:
    """An objective whose processes are forked by a server; new interpreters where it cannot be started."""
    server: ForkServer | None = None
    works = True

    def evaluate(spec: TrialSpec) -> TrialResult:
        nonlocal server, works
        file, env = write_spec(spec), _env(spec, context)
        if works and (server is None or not server.serves(env)):
            if server is not None:
                server.end()
            server = _start(file, env, context)
        exit_ = server.run(file, env) if works and server is not None else None
        if exit_ is None:
            works = False
            return _evaluate(spec, context)
        return _result(spec, exit_, context)

    try:
        yield lambda specs: [evaluate(spec) for spec in specs]
    finally:
        if server is not None:
            server.end()


def _start(file: Path, env: Mapping[str, str], context: TrialContext) -> ForkServer | None:
    with suppress(OSError):
        return ForkServer(folder=file.parent, env=env, stop=context.stop)
    return None


def _evaluate(spec: TrialSpec, context: TrialContext) -> TrialResult:
    """The trial in a new interpreter."""
    file = write_spec(spec)
    command = in_container(
        context.config, [sys.executable, "-m", "hpotune.worker.objective.function_process", str(file)]
    )
    # it goes to the folder of the study file itself, once nothing of that folder can be imported by hpotune
    exit_ = run_process(
        command, folder=file.parent, env=_env(spec, context), cwd=file.parent, stop=context.stop
    )
    return _result(spec, exit_, context)


def _env(spec: TrialSpec, context: TrialContext) -> dict[str, str]:
    return trial_env(context, spec) | {"PYTHONUNBUFFERED": "1"}


def _result(spec: TrialSpec, exit_: ProcessExit, context: TrialContext) -> TrialResult:
    paused = result_of_pause(spec, stop=context.stop)
    return paused or read_result(spec, exit_, stop=context.stop)

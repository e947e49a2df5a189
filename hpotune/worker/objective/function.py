"""A Python function as the objective, called in a process of its own: `python: file.py:function`.

The process is function_process.py.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager

from hpotune.records.trial import TrialResult, TrialSpec
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
from hpotune.worker.objective.process import run_process


def open_function(context: TrialContext) -> AbstractContextManager[Evaluate]:
    """The objective that calls the function once a trial, in a new interpreter, in the folder of the study file."""
    return one_process_each(_evaluate, context)


def _evaluate(spec: TrialSpec, context: TrialContext) -> TrialResult:
    file = write_spec(spec)
    command = in_container(
        context.config, [sys.executable, "-m", "hpotune.worker.objective.function_process", str(file)]
    )
    env = trial_env(context, spec) | {"PYTHONUNBUFFERED": "1"}
    # it goes to the folder of the study file itself, once nothing of that folder can be imported by hpotune
    exit_ = run_process(command, folder=file.parent, env=env, cwd=file.parent, stop=context.stop)
    paused = result_of_pause(spec, stop=context.stop)
    return paused or read_result(spec, exit_, stop=context.stop)

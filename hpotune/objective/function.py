"""A Python function as the objective, called in a process of its own: `python: file.py:function`."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

from hpotune.objective.interface import (
    Evaluate,
    Setting,
    begun,
    contained,
    from_file,
    one_by_one,
    trial_env,
)
from hpotune.objective.process import run
from hpotune.records.trial import TrialResult, TrialSpec


def open_function(setting: Setting) -> AbstractContextManager[Evaluate]:
    """Evaluates each trial by one call in a fresh interpreter, started where the study file lies."""
    return one_by_one(_evaluate, setting)


def _evaluate(spec: TrialSpec, setting: Setting) -> TrialResult:
    file = begun(spec)
    command = contained(
        setting.config, [sys.executable, "-m", "hpotune.objective.function_process", str(file)]
    )
    env = trial_env(setting, spec) | {"PYTHONUNBUFFERED": "1"}
    ended = run(command, folder=file.parent, env=env, cwd=Path(spec.home), stop=setting.stop)
    return from_file(spec, ended, stop=setting.stop)

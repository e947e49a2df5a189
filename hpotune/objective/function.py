"""A Python function as the objective, called in a process of its own: `python: file.py:function`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hpotune.objective.process import run
from hpotune.objective.socket import Evaluate, Setting, contained, from_file, trial_env
from hpotune.study.folder import write_atomic
from hpotune.study.trial import TrialResult, TrialSpec


@contextmanager
def open_function(setting: Setting) -> Iterator[Evaluate]:
    """Evaluates each trial by one call in a fresh interpreter, started where the study file lies."""

    def evaluate(pack: Sequence[TrialSpec]) -> list[TrialResult]:
        return [_evaluate(spec, setting) for spec in pack]

    yield evaluate


def _evaluate(spec: TrialSpec, setting: Setting) -> TrialResult:
    folder = Path(spec.folder)
    (folder / "result.json").unlink(missing_ok=True)
    write_atomic(folder / "spec.json", spec.model_dump_json(indent=1))
    command = contained(
        setting.config, [sys.executable, "-m", "hpotune.objective.call", str(folder / "spec.json")]
    )
    env = trial_env(setting, spec) | {"PYTHONUNBUFFERED": "1"}
    return from_file(
        spec, run(command, folder=folder, env=env, cwd=Path(spec.home), stop=setting.stop), stop=setting.stop
    )

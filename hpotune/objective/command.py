"""A shell command as the objective: `command: "python train.py --lr {lr}"`.

Its value comes from the file $HPOTUNE_RESULT, or from its last JSON line.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hpotune.objective.process import run, tail
from hpotune.objective.socket import Evaluate, Setting, contained, failed, measured, trial_env, unfinished
from hpotune.study.config import Json
from hpotune.study.folder import write_atomic
from hpotune.study.trial import TrialResult, TrialSpec


@contextmanager
def open_command(setting: Setting) -> Iterator[Evaluate]:
    """Evaluates each trial by one shell command, started where the study file lies."""

    def evaluate(pack: Sequence[TrialSpec]) -> list[TrialResult]:
        return [_evaluate(spec, setting) for spec in pack]

    yield evaluate


def fill_in(template: str, params: Mapping[str, Json]) -> str:
    """The command with its {names} replaced by quoted values; {{ and }} are braces."""
    quoted = {
        key: shlex.quote(value if isinstance(value, str) else json.dumps(value))
        for key, value in params.items()
    }
    return template.format_map(quoted)


def _evaluate(spec: TrialSpec, setting: Setting) -> TrialResult:
    assert spec.command is not None, "opened for command: studies only"
    folder = Path(spec.folder)
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    (folder / "result.json").unlink(missing_ok=True)  # of an attempt that was paused
    write_atomic(folder / "spec.json", spec.model_dump_json(indent=1))
    try:
        line = fill_in(spec.command, spec.point.params)
    except KeyError as error:  # a conditional parameter that this point does not have
        return failed(spec, "user", f"the command needs {error}, which this trial does not have")
    env = trial_env(setting, spec) | {"HPOTUNE_RESULT": str(answer)}
    command = contained(setting.config, ["bash", "-c", line])
    ended = run(command, folder=folder, env=env, cwd=Path(spec.home), stop=setting.stop)
    result = _answer(spec, answer) if ended.code == 0 else unfinished(spec, ended, stop=setting.stop)
    write_atomic(folder / "result.json", result.model_dump_json(indent=1))
    return result


def _answer(spec: TrialSpec, file: Path) -> TrialResult:
    if file.exists():
        try:
            return measured(spec, json.loads(file.read_text(encoding="utf-8")))
        except ValueError as error:
            return failed(spec, "user", f"wrote a file that is not JSON ({error})")
    for line in reversed(tail(Path(spec.folder), lines=200)):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, (dict, int, float)):
            return measured(spec, found)
    return failed(
        spec,
        "user",
        'printed no JSON line and wrote no $HPOTUNE_RESULT file; print {"NAME": number} at its end',
    )

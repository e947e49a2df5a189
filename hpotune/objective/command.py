"""A shell command as the objective: `command: "python train.py --lr {lr}"`.

Its value comes from the file $HPOTUNE_RESULT, or from the last JSON line that holds it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from hpotune.config.schema.study_config import Json
from hpotune.objective.interface import (
    Evaluate,
    Setting,
    begun,
    contained,
    failed,
    measured,
    one_by_one,
    plain_budget,
    trial_env,
    unfinished,
)
from hpotune.objective.process import Ended, run, tail
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.workspace.folder import write_atomic


def open_command(setting: Setting) -> AbstractContextManager[Evaluate]:
    """Evaluates each trial by one shell command, started where the study file lies."""
    return one_by_one(_evaluate, setting)


def fill_in(template: str, params: Mapping[str, Json]) -> str:
    """The command with its {names} replaced by quoted values; {{ and }} are braces."""
    quoted = {
        key: shlex.quote(value if isinstance(value, str) else json.dumps(value))
        for key, value in params.items()
    }
    return template.format_map(quoted)


def _evaluate(spec: TrialSpec, setting: Setting) -> TrialResult:
    assert spec.command is not None, "opened for command: studies only"
    folder = begun(spec).parent
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    try:
        budget = {"budget": plain_budget(spec.rung)} if spec.rung else {}
        line = fill_in(spec.command, {**budget, **spec.point.params})
    except KeyError as error:  # a conditional parameter that this point does not have
        return failed(spec, "user", f"the command needs {error}, which this trial does not have")
    env = trial_env(setting, spec) | {"HPOTUNE_RESULT": str(answer)}
    command = contained(setting.config, ["bash", "-c", line])
    ended = run(command, folder=folder, env=env, cwd=Path(spec.home), stop=setting.stop)
    # a line may be a report from half-way; asked to end, a command says by the file alone that it was done
    done = ended.code == 0 and (setting.stop.signal is None or answer.exists())
    result = _answer(spec, answer, ended) if done else unfinished(spec, ended, stop=setting.stop)
    write_atomic(folder / "result.json", result.model_dump_json(indent=1))
    return result


def _answer(spec: TrialSpec, file: Path, ended: Ended) -> TrialResult:
    if file.exists():
        try:
            return measured(spec, json.loads(file.read_text(encoding="utf-8")))
        except ValueError as error:
            return failed(spec, "user", f"wrote a file that is not JSON ({error})")
    metrics = [objective.metric for objective in spec.point.score.objective]
    for line in reversed(tail(Path(spec.folder), log_start=ended.log_start, lines=200)):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if _holds(found, metrics):
            return measured(spec, found)
    wanted = ", ".join(f'"{metric}": number' for metric in metrics)
    return failed(
        spec,
        "user",
        f"printed no JSON line with its value and wrote no $HPOTUNE_RESULT file; print {{{wanted}}} at its end",
    )


def _holds(found: Json, metrics: Sequence[str]) -> bool:
    """Whether a JSON line is the value: every metric by name, or a bare number where there is only one."""
    if isinstance(found, dict):
        return all(metric in found for metric in metrics)
    return len(metrics) == 1 and isinstance(found, (int, float)) and not isinstance(found, bool)

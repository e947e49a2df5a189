"""A shell command as the objective: `command: "python train.py --lr {lr}"`.

Its value is read from the file $HPOTUNE_RESULT, else from the last JSON line of its output that holds it.
"""

from __future__ import annotations

import json
import shlex
import string
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from hpotune.config.param_names import values_by_name
from hpotune.config.yaml_source import Value
from hpotune.objective.interface import (
    Evaluate,
    TrialContext,
    failed_result,
    in_container,
    one_process_each,
    result_of_answer,
    result_of_exit,
    rung_budget,
    trial_env,
    write_spec,
)
from hpotune.objective.process import ProcessExit, log_tail, run_process
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.origin.trial_provenance import record_first


def open_command(context: TrialContext) -> AbstractContextManager[Evaluate]:
    """The objective that runs one shell command a trial, in the folder of the study file."""
    return one_process_each(_evaluate, context)


def fill_in(template: str, params: Mapping[str, Value]) -> str:
    """The command with its {names} replaced by values quoted for the shell; {{ and }} are braces.

    A dotted name is a key with dots, or a value inside a mapping.
    Raises: KeyError for a name without a value.
    """
    values = dict(values_by_name(dict(params)))
    quoted = {
        name: shlex.quote(value if isinstance(value, str) else json.dumps(value))
        for name, value in values.items()
    }
    parts = string.Formatter().parse(template)
    return "".join(literal + ("" if name is None else quoted[name]) for literal, name, _, _ in parts)


def _evaluate(spec: TrialSpec, context: TrialContext) -> TrialResult:
    assert spec.command is not None, "the study names a command"
    folder = write_spec(spec).parent
    answer = folder / "answer.json"
    record_first(spec)
    answer.unlink(missing_ok=True)
    try:
        budget = {"budget": rung_budget(spec.rung)} if spec.rung else {}
        line = fill_in(spec.command, {**budget, **spec.point.params})
    except KeyError as error:  # a conditional parameter that this point does not have
        return failed_result(spec, "user", f"the command needs {error}, which this trial does not have")
    env = trial_env(context, spec) | {"HPOTUNE_RESULT": str(answer)}
    command = in_container(context.config, ["bash", "-c", line])
    exit_ = run_process(command, folder=folder, env=env, cwd=Path(spec.home), stop=context.stop)
    # a line may be an intermediate report: of a command that was asked to end, only the file counts as its value
    done = exit_.code == 0 and (context.stop.signal is None or answer.exists())
    result = _read_answer(spec, answer, exit_) if done else result_of_exit(spec, exit_, stop=context.stop)
    write_atomic(folder / "result.json", result.model_dump_json(indent=1))
    return result


def _read_answer(spec: TrialSpec, file: Path, exit_: ProcessExit) -> TrialResult:
    if file.exists():
        try:
            return result_of_answer(spec, json.loads(file.read_text(encoding="utf-8")))
        except ValueError as error:
            return failed_result(spec, "user", f"wrote a file that is not JSON ({error})")
    metrics = [objective.metric for objective in spec.point.score.objective]
    for line in reversed(log_tail(Path(spec.folder), log_start=exit_.log_start, lines=200)):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if _holds_value(found, metrics):
            return result_of_answer(spec, found)
    wanted = ", ".join(f'"{metric}": number' for metric in metrics)
    return failed_result(
        spec,
        "user",
        f"printed no JSON line with its value and wrote no $HPOTUNE_RESULT file; print {{{wanted}}} at the end",
    )


def _holds_value(found: object, metrics: Sequence[str]) -> bool:
    """Whether a JSON line holds the value: every metric by name, or a bare number where there is only one."""
    if isinstance(found, dict):
        return all(metric in found for metric in metrics)
    return len(metrics) == 1 and isinstance(found, (int, float)) and not isinstance(found, bool)

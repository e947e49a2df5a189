"""A shell command as the objective: `command: "python train.py --lr {lr}"`.

Its value is read from the file $HPOTUNE_RESULT, from `hpotune.report`, from the last JSON line of its output that holds
it, or where `score.collect` says (collectors.py).
"""

from __future__ import annotations

import json
import shlex
import string
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from hpotune.config.param_names import values_by_name
from hpotune.config.yaml_source import Value
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.worker.objective.collectors import Collector, open_collector
from hpotune.worker.objective.interface import (
    ATTEMPT,
    Evaluate,
    TrialContext,
    failed_result,
    in_container,
    one_process_each,
    result_of_answer,
    result_of_exit,
    result_of_pause,
    rung_budget,
    trial_env,
    write_spec,
)
from hpotune.worker.objective.process import run_process
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
    collector = open_collector(spec, attempt=env[ATTEMPT])
    exit_ = run_process(command, folder=folder, env=env, cwd=Path(spec.home), stop=context.stop)
    # a line may be an intermediate report: of a command that was asked to end, only the file counts as its value
    done = exit_.code == 0 and (context.stop.signal is None or answer.exists())
    paused = result_of_pause(spec, stop=context.stop) if done else None
    result = paused or (
        _read_answer(spec, answer, collector) if done else result_of_exit(spec, exit_, stop=context.stop)
    )
    write_atomic(folder / "result.json", result.model_dump_json(indent=1))
    return result


def _read_answer(spec: TrialSpec, file: Path, collector: Collector) -> TrialResult:
    answer = None
    if file.exists() and spec.point.score.collect.kind == "auto":
        try:
            answer = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            return failed_result(spec, "user", f"wrote a file that is not JSON ({error})")
        if answer is None:
            return result_of_answer(spec, None)
    return collector.result(answer)

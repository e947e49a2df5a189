"""`python -m hpotune.worker.objective.function_process SPEC.json`: call the study's function and write result.json."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from hpotune.config.ownership import this_user
from hpotune.records.error_origin import code_lines, error_chain, reason
from hpotune.records.failure_causes import cause_of_error
from hpotune.records.program_import import importing_program
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.worker.objective.collectors import open_collector
from hpotune.worker.objective.interface import ATTEMPT, failed_result, rung_budget
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.origin.trial_provenance import record_first


def main(spec_file: str) -> int:
    """Call the function with the trial's `params`, write the result. Returns the exit code: 0 if there is a value."""
    spec = TrialSpec.model_validate_json(Path(spec_file).read_text(encoding="utf-8"))
    record_first(spec)
    os.chdir(spec.home)
    result = _call(spec)
    write_atomic(Path(spec.folder, "result.json"), result.model_dump_json(indent=1))
    return 0 if result.state == "finished" else 1


def _call(spec: TrialSpec) -> TrialResult:
    collector = open_collector(spec, attempt=os.environ.get(ATTEMPT, ""))
    try:
        function = _load_function(spec)
        answer = _plain_numbers(function(**_budget(spec, function), **spec.point.params))
        sys.stdout.flush()  # its log may be read
        return collector.result(answer)
    except SystemExit as error:  # no result: it may be how the function ends after it was asked to pause
        of_user = [line for line in code_lines(error) if line.owner == "user"]
        where = f" at {of_user[-1].text}" if of_user else ""
        sys.stderr.write(f"the function called sys.exit({error.code!r}){where}\n")
        raise
    except Exception as error:  # the user's code may raise anything
        traceback.print_exc()
        cause = next(filter(None, map(cause_of_error, error_chain(error))), "user")
        of_user = [line for line in code_lines(error) if line.owner == "user"]
        where = f" (at {of_user[-1].text})" if of_user else ""
        return failed_result(spec, cause, f"{reason(error)}{where}")


def _budget(spec: TrialSpec, function: Callable[..., object]) -> dict[str, int | float]:
    """The keyword `budget`, the rung to train to, for a function that takes it."""
    if spec.rung is None or "budget" in spec.point.params:
        return {}
    taken = inspect.signature(function).parameters.values()
    takes = any(p.name == "budget" or p.kind is inspect.Parameter.VAR_KEYWORD for p in taken)
    return {"budget": rung_budget(spec.rung)} if takes else {}


def _plain_numbers(answer: object) -> object:
    """The answer with numbers of numpy and torch as Python numbers."""
    if isinstance(answer, Mapping):
        return {str(key): _plain_numbers(value) for key, value in answer.items()}
    item = getattr(answer, "item", None)
    try:
        return item() if callable(item) else answer
    except (TypeError, ValueError, RuntimeError):  # an array of several numbers or of none
        return answer


def _extend_import_path(program: Path, *, home: Path) -> None:
    """Let the program import the modules beside it first, as when it is run, and those in the study's home.

    All that this process needs has been imported before. A home in which others may put modules comes last.
    """
    if sys.path and Path(sys.path[0]).resolve() == Path(sys.argv[1]).parent.resolve():
        del sys.path[0]  # of -m: the trial's folder, where this process was started
    sys.dont_write_bytecode = True  # beside the copies in a code snapshot
    if this_user().complaint(home):
        sys.path.append(str(home))
    else:
        sys.path.insert(0, str(home))
    sys.path.insert(0, str(program))


def _load_function(spec: TrialSpec) -> Callable[..., object]:
    assert spec.python is not None, "the study names a function"
    path, _, name = spec.python.rpartition(":")
    _extend_import_path(Path(path).parent, home=Path(spec.home))
    loader = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert loader is not None, "load_study checked that it is a .py file"
    assert loader.loader is not None, "a file has a loader"
    module = importlib.util.module_from_spec(loader)
    # dataclasses and pickle look up a class's module there; a module of the standard library keeps its name
    sys.modules.setdefault(loader.name, module)
    with importing_program() as ended:
        loader.loader.exec_module(module)
    if ended and not hasattr(module, name):
        raise AttributeError(
            f"{Path(path).name} has no function {name!r} above the line where it starts the study; define it above"
        )
    function: Callable[..., object] = getattr(module, name)
    return function


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""`python -m hpotune.objective.function_process SPEC.json`: calls the study's function and writes result.json."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from hpotune.config.schema.study_config import Json
from hpotune.objective.interface import failed, measured, plain_budget
from hpotune.records.failure_causes import cause_of
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.workspace.folder import write_atomic


def main(spec_file: str) -> int:
    """Calls the function with the trial's `params`; 0 when it gave a value."""
    spec = TrialSpec.model_validate_json(Path(spec_file).read_text(encoding="utf-8"))
    result = _called(spec)
    write_atomic(Path(spec.folder, "result.json"), result.model_dump_json(indent=1))
    return 0 if result.state == "finished" else 1


def _called(spec: TrialSpec) -> TrialResult:
    try:
        function = _function(spec)
        return measured(spec, _plain(function(**_budget(spec, function), **spec.point.params)))
    except MemoryError as error:
        traceback.print_exc()
        return failed(spec, "oom", f"ran out of memory ({error})")
    except Exception as error:  # the user's code may raise anything; the worker lives on
        traceback.print_exc()
        cause, _ = cause_of([str(error)]) or ("user", "")
        return failed(spec, cause, f"{type(error).__name__}: {error}")


def _budget(spec: TrialSpec, function: Callable[..., Json]) -> dict[str, Json]:
    """How far this turn goes, for a function that takes `budget`."""
    if spec.rung is None or "budget" in spec.point.params:
        return {}
    taken = inspect.signature(function).parameters.values()
    takes = any(p.name == "budget" or p.kind is inspect.Parameter.VAR_KEYWORD for p in taken)
    return {"budget": plain_budget(spec.rung)} if takes else {}


def _plain(answer: object) -> Json:
    """Numbers of numpy and torch as Python's."""
    if isinstance(answer, Mapping):
        return {str(key): _plain(value) for key, value in answer.items()}
    item = getattr(answer, "item", None)
    plain: Json = item() if callable(item) and getattr(answer, "size", 1) != 0 else answer
    return plain


def _function(spec: TrialSpec) -> Callable[..., Json]:
    assert spec.python is not None, "started for python: studies only"
    path, _, name = spec.python.rpartition(":")
    # so that the file imports its neighbours as it does when run by hand
    sys.path.insert(0, str(Path(path).parent))
    loader = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert loader is not None, "load_study saw a .py file"
    assert loader.loader is not None, "a file has a loader"
    module = importlib.util.module_from_spec(loader)
    # dataclasses and pickle look a class's module up there; one of Python's own keeps its name
    sys.modules.setdefault(loader.name, module)
    loader.loader.exec_module(module)
    function: Callable[..., Json] = getattr(module, name)
    return function


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""A Python function of the user as a program of its own, as Katib does it: its source, and a line that calls it.

The program gets the trial's values from $HPOTUNE_PARAMS and calls the function with them as one dict. Only source that
runs by itself can be written: no lambda, no method, no name of the file or function around it.
"""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType

from hpotune.config.space.range_parsing import range_kind
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError
from hpotune.search.parameter_ranges import Searched

PROGRAM = '''\
"""The objective of the study {study}: the function that was given to hpotune.tune(objective=...)."""

from __future__ import annotations

import json
import os


{source}

if __name__ == "__main__":
    parameters = json.loads(os.environ["HPOTUNE_PARAMS"]){resource}
    answer = {function}(parameters){answer}
'''
PRINTED = """
    if answer is not None and os.environ.get("RANK", "0") == "0":
        for name, value in (answer if isinstance(answer, dict) else {{{metric!r}: answer}}).items():
            print(f"{{name}}={{float(value)!r}}", flush=True)"""
RETURNED = """
    if answer is not None and os.environ.get("RANK", "0") == "0":
        print("\\n" + json.dumps(answer, default=float), flush=True)"""
RESOURCE = """
    share = float(os.environ.get("HPOTUNE_RUNG_BUDGET", "1"))
    parameters[{name!r}] = type(parameters[{name!r}])(max(1, round(share * parameters[{name!r}])))"""


def objective_program(
    objective: object, *, study: str, metric: str, printed: bool, resource: str | None = None
) -> str:
    """The text of a program that calls the objective once.

    `printed`: its values are read from printed lines, so what it returns is printed too, a bare number as `metric`.
    `resource`: the parameter that a rung is a part of.

    Raises: StudyFileError where the function cannot stand in a file of its own.
    """
    function = _plain_function(objective)
    source = _source(function)
    _check_names(function)
    return PROGRAM.format(
        study=study,
        source=source,
        function=function.__name__,
        answer=PRINTED.format(metric=metric) if printed else RETURNED,
        resource="" if resource is None else RESOURCE.format(name=resource),
    )


def _plain_function(objective: object) -> FunctionType:
    """Raises: StudyFileError for anything but a function of one argument that is defined by `def`."""
    shown = getattr(objective, "__name__", repr(objective))
    step = "; write a function: def objective(parameters): ..."
    if not isinstance(objective, FunctionType) or objective.__name__ == "<lambda>":
        kind = "lambda" if isinstance(objective, FunctionType) else type(objective).__name__
        raise StudyFileError(f"objective: is a {kind}, whose source cannot stand in a file of its own{step}")
    if hasattr(objective, "__wrapped__"):
        raise StudyFileError(
            f"objective: {shown} has a decorator, which a job does not have; call it inside instead"
        )
    if inspect.iscoroutinefunction(objective) or inspect.isgeneratorfunction(objective):
        raise StudyFileError(f"objective: {shown} is a coroutine or a generator{step}")
    try:
        inspect.signature(objective).bind({})
    except TypeError:
        raise StudyFileError(
            f"objective: {shown}{inspect.signature(objective)} needs one argument, the dict of the parameters{step}"
        ) from None
    if objective.__code__.co_freevars:
        names = ", ".join(objective.__code__.co_freevars)
        raise StudyFileError(
            f"objective: {shown} uses {names} of the function around it, which a job does not have; define it inside, "
            "or pass it in parameters"
        )
    return objective


def _source(function: FunctionType) -> str:
    """Raises: StudyFileError where Python does not know the source, or it has decorators."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
        tree = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        raise StudyFileError(
            f"objective: the source of {function.__name__} is not known, as of a function that was typed into "
            "`python`; put it into a file or a notebook cell of its own"
        ) from None
    if not isinstance(tree, ast.FunctionDef) or tree.decorator_list:
        raise StudyFileError(
            f"objective: {function.__name__} has a decorator, which a job does not have; call it inside instead"
        )
    return source


def _check_names(function: FunctionType) -> None:
    """Raises: StudyFileError for names of the file around the function: they are not defined in the program."""
    known = {function.__name__, *vars(builtins), "json", "os", "__name__"}
    outside = [name for name in dict.fromkeys(_global_names(function.__code__)) if name not in known]
    defined = [name for name in outside if name in function.__globals__]
    if defined:
        raise StudyFileError(
            f"objective: {function.__name__} uses {', '.join(defined)} of the file around it, which a job does not "
            "have; import or define it inside the function"
        )


def _global_names(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def objective_parameters(parameters: object) -> dict[str, Value]:
    """The section `params`: ranges, and values that every trial gets unchanged.

    Raises: StudyFileError.
    """
    if not isinstance(parameters, Mapping) or not parameters:
        raise StudyFileError(
            "parameters: is missing; needs a dict such as {'lr': hpotune.search.double(0.01, 0.1)}"
        )
    found: dict[str, Value] = {}
    for name, value in parameters.items():
        plain = value.study_value if isinstance(value, Searched) else value
        try:
            json.dumps(plain, allow_nan=False)
        except (TypeError, ValueError):
            raise StudyFileError(
                f"parameters[{name!r}]: a {type(value).__name__} cannot be written to a file; needs a range of "
                "hpotune.search, a number, text, a list or a dict"
            ) from None
        if not isinstance(value, Searched) and range_kind(plain) is not None:
            raise StudyFileError(
                f"parameters[{name!r}]: {plain!r} would be read as a range; write hpotune.search.double, int or "
                "categorical for one, or use another key"
            )
        found[str(name)] = plain
    if not any(isinstance(value, Searched) for value in parameters.values()):
        raise StudyFileError(
            "parameters: has no range; give one as hpotune.search.double, int or categorical"
        )
    return found

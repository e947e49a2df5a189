"""Checks whether the user's function or command accepts the study's params. Parses its source, never runs it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from hpotune.checks.finding import Finding
from hpotune.config.load import Study
from hpotune.config.paths import template_names
from hpotune.config.yaml_source import Mistake
from hpotune.errors import nearest
from hpotune.schedule.promotion import MIN_PRUNING_SHARE

BUDGET = "budget"
"""Name of the parameter through which a function or command gets the budget of its next rung."""


def rung_mistakes(study: Study) -> Iterator[Mistake]:
    """An error if a param of the study has the name of the rung's budget."""
    given, _ = _given(study)
    if study.config.search.trains_in_stages and study.config.model is None and BUDGET in given:
        rule = "is reserved for the budget of a rung (search.pruner); give the param another name"
        yield ("params", BUDGET), f"params.{BUDGET} {rule}"


def rung_warning(study: Study) -> Iterator[Finding]:
    """A warning for rungs at which no trial is pruned, or whose budget the function or command does not read."""
    config, ladder = study.config, study.config.search.ladder
    if not config.search.trains_in_stages:
        return
    rungs = enumerate(ladder.budgets if ladder is not None else ())
    early = [budget for rung, budget in rungs if ladder and ladder.share(rung) < MIN_PRUNING_SHARE - 1e-9]
    if ladder is not None and early and not ladder.is_halving:
        text = f"{ladder.pruner} prunes no trial in the first fifth of a run, so rung {early[0]:g} only costs time"
        yield Finding(kind="rungs", level="note", key=("search", "rungs"), text=text)
    elif config.command is not None:
        if f"{{{BUDGET}}}" not in config.command:
            yield Finding(
                kind="rungs", level="note", text=f"command does not use {{{BUDGET}}}; {_WHOLE_TRIALS}"
            )
    elif config.python is not None:
        path, _, name = config.python.rpartition(":")
        function = _function(Path(path), name)
        if function is None or function.args.kwarg is not None:
            return
        named = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
        if BUDGET not in named:
            text = f"python: {name} takes no `{BUDGET}`; {_WHOLE_TRIALS}"
            yield Finding(kind="rungs", level="note", text=text)


_WHOLE_TRIALS = "unless it reads $HPOTUNE_RUNG_BUDGET, each rung costs a whole trial"


def command_mistakes(study: Study) -> Iterator[Mistake]:
    """An error for each name in the command that is not a param, or that is a param of only some trials."""
    command = study.config.command
    if command is None:
        return
    given, sometimes = _given(study)
    given |= {BUDGET} if study.config.search.trains_in_stages else set()
    try:
        read = template_names(command)
    except ValueError as error:
        yield ("command",), f"command={command!r} {error}; write {{{{ and }}}} for literal braces"
        return
    for name in sorted(read - given):
        valid = nearest(name, given) if given else "params is empty"
        yield ("command", name), f"command reads {{{name}}}, which is not under params; {valid}"
    for name in sorted(read & sometimes):
        rule = f"only some trials have it (when); let the program read $HPOTUNE_PARAM_{name.upper()} instead"
        yield ("command", name), f"command reads {{{name}}}, but {rule}"


def function_mistakes(study: Study) -> Iterator[Mistake]:
    """An error for each param that the function does not accept, and each parameter that not every trial provides.

    A function that is imported into its file or decorated is not checked, because its parameters are not known.
    """
    if study.config.python is None:
        return
    path, _, name = study.config.python.rpartition(":")
    function = _function(Path(path), name)
    if function is None:
        return
    (given, sometimes), taken = _given(study), function.args
    rung = {BUDGET} if study.config.search.trains_in_stages else set()
    positional = [argument.arg for argument in taken.args]
    needed = set(positional[: len(positional) - len(taken.defaults)])
    needed |= {
        a.arg for a, default in zip(taken.kwonlyargs, taken.kw_defaults, strict=True) if default is None
    }
    if taken.posonlyargs:
        yield (
            ("python",),
            f"python: {name} has positional-only parameters, and params are passed by name; remove the /",
        )
    for missing in sorted(needed - given - rung):
        valid = nearest(missing, given) if given else "params is empty"
        yield (
            ("python",),
            f"python: {name} needs {missing!r}, which is not under params; {valid}",
        )
    for missing in sorted(needed & sometimes):
        rule = "which only some trials have (when); give it a default"
        yield ("params", missing), f"python: {name} needs {missing!r}, {rule}"
    known = {*positional, *(argument.arg for argument in taken.kwonlyargs)}
    for extra in sorted(given - known) if taken.kwarg is None else ():
        yield (
            ("params", extra),
            f"params.{extra} is not a parameter of {name}; {nearest(extra, known)}, or add **others",
        )


def _function(file: Path, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The last definition of that name in the file; None if the function cannot be determined from the source."""
    try:
        body = ast.parse(file.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return None
    found = [
        node
        for node in body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name
    ]
    again = any(
        isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)
        for s in body
        for n in ast.walk(s)
    )
    return found[-1] if found and not again and not found[-1].decorator_list else None


def _given(study: Study) -> tuple[set[str], set[str]]:
    """The names under params, and those that only some trials have."""
    params = study.template.get("params")
    sometimes = {
        str(r.where[1]) for r in study.space.ranges if r.where[0] == "params" and r.when and len(r.where) == 2
    }
    return set(params) if isinstance(params, dict) else set(), sometimes

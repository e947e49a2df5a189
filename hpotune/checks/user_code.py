"""Mistakes between a study's params and the user's own function or command that takes them. Read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from hpotune.config.load import Study
from hpotune.config.paths import template_names
from hpotune.config.yaml_source import Mistake
from hpotune.errors import nearest
from hpotune.schedule.promotion import FIRST_SHARE

BUDGET = "budget"
"""What a function or a command is told of the rung that a turn goes to."""


def rung_mistakes(study: Study) -> Iterator[Mistake]:
    """A param of one's own by the name of the rung's budget."""
    given, _ = _given(study)
    if study.config.search.in_parts and study.config.model is None and BUDGET in given:
        rule = "is what a trial is told of its rung (search.pruner); give the param another name"
        yield ("params", BUDGET), f"params.{BUDGET} {rule}"


def rung_warning(study: Study) -> str | None:
    """Rungs where nothing is ever stopped, or that a function or a command does not seem to heed; None: all is well."""
    config, ladder = study.config, study.config.search.ladder
    if not config.search.in_parts:
        return None
    rungs = enumerate(ladder.budgets if ladder is not None else ())
    early = [budget for rung, budget in rungs if ladder and ladder.share(rung) < FIRST_SHARE - 1e-9]
    if ladder is not None and early and not ladder.halves:
        place = study.source.location(("search", "rungs"))
        return f"{place}: {ladder.pruner} stops nothing before a fifth of the run, so rung {early[0]:g} only costs"
    if config.model is not None:
        return None
    if config.command is not None:
        heeds = "budget" in template_names(config.command)
        return None if heeds else f"command reads no {{{BUDGET}}}; {_EACH_WHOLE}"
    path, _, name = str(config.python).rpartition(":")
    function = _function(study.source.path.parent / path, name)
    if function is None or function.args.kwarg is not None:
        return None
    named = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
    return None if BUDGET in named else f"python: {name} takes no `{BUDGET}`; {_EACH_WHOLE}"


_EACH_WHOLE = "unless it reads $HPOTUNE_RUNG_BUDGET, each rung costs a whole trial"


def command_mistakes(study: Study) -> Iterator[Mistake]:
    """Names in the command that are no params, or that only some trials have."""
    command = study.config.command
    if command is None:
        return
    given, sometimes = _given(study)
    given |= {BUDGET} if study.config.search.in_parts else set()
    try:
        read = template_names(command)
    except ValueError as error:
        yield ("command",), f"command={command!r} {error}; write {{{{ and }}}} for braces of the shell"
        return
    for name in sorted(read - given):
        valid = nearest(name, given) if given else "params is empty"
        yield ("command", name), f"command reads {{{name}}}, which is not under params; {valid}"
    for name in sorted(read & sometimes):
        rule = f"only some trials have it (when); let the program read $HPOTUNE_PARAM_{name.upper()} instead"
        yield ("command", name), f"command reads {{{name}}}, but {rule}"


def function_mistakes(study: Study) -> Iterator[Mistake]:
    """Params that the function does not take, and parameters of it that no trial, or not every one, gives.

    Says nothing of a function that is imported into its file or decorated: its parameters are not seen there.
    """
    if study.config.python is None:
        return
    path, _, name = study.config.python.rpartition(":")
    function = _function(Path(path), name)
    if function is None:
        return
    (given, sometimes), taken = _given(study), function.args
    rung = {BUDGET} if study.config.search.in_parts else set()
    places = [argument.arg for argument in taken.args]
    needed = set(places[: len(places) - len(taken.defaults)])
    needed |= {
        a.arg for a, default in zip(taken.kwonlyargs, taken.kw_defaults, strict=True) if default is None
    }
    if taken.posonlyargs:
        yield (
            ("python",),
            f"python: {name} has parameters before a /, and params are given by name; remove the /",
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
    known = {*places, *(argument.arg for argument in taken.kwonlyargs)}
    for extra in sorted(given - known) if taken.kwarg is None else ():
        yield (
            ("params", extra),
            f"params.{extra} is no parameter of {name}; {nearest(extra, known)}, or add **others",
        )


def _function(file: Path, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The definition that the name has when the file was read to its end; None where the source does not tell."""
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
    """Names under params, and those of them that only some trials have."""
    params = study.template.get("params")
    sometimes = {
        str(r.where[1]) for r in study.space.ranges if r.where[0] == "params" and r.when and len(r.where) == 2
    }
    return set(params) if isinstance(params, dict) else set(), sometimes

"""Checks whether the user's function or command accepts the study's params. Parses its source, never runs it."""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from hpotune.checks.finding import Finding
from hpotune.config.load import Study
from hpotune.config.param_names import environment_name, name_mistakes, values_by_name
from hpotune.config.paths import parse_python, template_names
from hpotune.config.text.shell_quotes import quote_mistakes, standing_alone
from hpotune.config.yaml_source import Mistake
from hpotune.errors import nearest
from hpotune.schedule.promotion import MIN_PRUNING_SHARE

QUOTED = "quoted placeholder"
"""Kind of finding."""
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
        if f"{{{BUDGET}}}" not in config.command and not _asks_to_stop(_programs(study)):
            yield Finding(
                kind="rungs", level="note", text=f"command does not use {{{BUDGET}}}; {_WHOLE_TRIALS}"
            )
    elif config.python is not None:
        path, _, name = config.python.rpartition(":")
        function = _function(Path(path), name)
        if function is None or function.args.kwarg is not None or _asks_to_stop([Path(path)]):
            return
        named = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
        if BUDGET not in named:
            text = f"python: {name} takes no `{BUDGET}`; {_WHOLE_TRIALS}"
            yield Finding(kind="rungs", level="note", text=text)


def _programs(study: Study) -> list[Path]:
    """The Python files that the command names."""
    words = (study.config.command or "").split()
    return [study.source.path.parent / word for word in words if word.endswith(".py")]


def _asks_to_stop(files: Iterable[Path]) -> bool:
    """Whether one of the programs ends at its rung by hpotune's own calls, as far as its text says."""
    for file in files:
        with suppress(OSError, UnicodeDecodeError):
            text = file.read_text(encoding="utf-8")
            if "should_stop" in text or "TrainerCallback" in text:
                return True
    return False


_WHOLE_TRIALS = (
    "unless it reads $HPOTUNE_RUNG_BUDGET or asks hpotune.should_stop(), each rung costs a whole trial"
)


def command_mistakes(study: Study) -> Iterator[Mistake]:
    """An error for each name in the command that is not a param, or that is a param of only some trials.

    Also for each name or value of a param that cannot reach the command.
    """
    command = study.config.command
    if command is None:
        return
    yield from name_mistakes(study.template.get("params"), by_command=True)
    given, sometimes = _named(study)
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
        rule = f"only some trials have it (when); let the program read ${environment_name(name)} instead"
        yield ("command", name), f"command reads {{{name}}}, but {rule}"


def quoted_placeholders(study: Study) -> Iterator[Finding]:
    """An error for each placeholder of the command that is no bare word, and for quotes that nothing closes."""
    command = study.config.command
    try:
        found = [*quote_mistakes(command)] if command is not None else []
    except ValueError:  # command_mistakes reports it
        return
    for name, where in found:
        text = f"command {where}; close them, or write a backslash before a quote that is text"
        if name:
            rule = f"values are quoted for the shell: write {{{name}}} bare"
            text = f"command has {{{name}}} {where}, but {rule}, or ${environment_name(name)} there"
        yield Finding(kind=QUOTED, level="bad", key=("command", name, "quotes"), text=text)


def empty_argument_warning(study: Study) -> Iterator[Finding]:
    """A warning for each placeholder that stands alone and has an empty text among its choices."""
    command = study.config.command
    try:
        alone = standing_alone(command) if command is not None else set()
    except ValueError:  # command_mistakes reports it
        return
    for r in study.space.searched:
        name = r.name.removeprefix("params.")
        if name in alone and "" in [one for one in r.options if isinstance(one, str)]:
            text = f"{r.name}: an empty text reaches the command as one empty argument ('')"
            advice = f"for no argument write ${environment_name(name)} instead of {{{name}}}"
            yield Finding(kind="empty argument", level="note", key=r.where, text=text, advice=advice)


def function_mistakes(study: Study) -> Iterator[Mistake]:
    """An error for each param that the function does not accept, and each parameter that not every trial provides.

    Also for each name or value of a param that cannot reach the function.
    A function that is imported into its file or decorated is not checked, because its parameters are not known.
    """
    if study.config.python is None:
        return
    yield from name_mistakes(study.template.get("params"), by_command=False)
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
        yield ("params", extra), _not_a_parameter(extra, name, known)


def _not_a_parameter(param: str, function: str, known: Iterable[str]) -> str:
    """The error of a param that a function does not take."""
    if param.isidentifier() and not keyword.iskeyword(param):
        return f"params.{param} is not a parameter of {function}; {nearest(param, known)}, or add **others"
    valid = re.sub(r"\W", "_", param)
    valid = f"_{valid}" if valid[:1].isdigit() or keyword.iskeyword(valid) else valid
    rule = "cannot be the name of a Python parameter"
    return f"params: {param!r} {rule}; rename it, for example {valid}, or add **others to {function}"


def _function(file: Path, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The last definition of that name in the file; None if the function cannot be determined from the source."""
    try:
        body = parse_python(file).body
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


def _named(study: Study) -> tuple[set[str], set[str]]:
    """The dotted names of all values under params, and those that only some trials have."""
    ranges = {r.name.removeprefix("params."): r for r in study.space.ranges if r.where[0] == "params"}
    fixed = {name for name, _ in values_by_name(dict(study.config.params))}
    return fixed | ranges.keys(), {name for name, r in ranges.items() if r.when}


def _given(study: Study) -> tuple[set[str], set[str]]:
    """The keys of params, which are arguments of a function, and those that only some trials have."""
    params = study.template.get("params")
    sometimes = {
        str(r.where[1]) for r in study.space.ranges if r.where[0] == "params" and r.when and len(r.where) == 2
    }
    return set(params) if isinstance(params, dict) else set(), sometimes

"""The messages of errors, checks, notes and failed trials, read from hpotune's source without importing it.

Read are the calls that make an error of hpotune (`raise StudyFileError(f"…")`, and the functions that return such an
error or its text), findings of checks, failures of trials, stop reasons, notes, and the mistakes that checks yield as
(key, text). A placeholder has the name of the variable whose value stands there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "hpotune"
TEXT_ARGUMENTS = {"Finding": ("text", "advice"), "Failure": ("message",), "StopReason": ("text",)}
"""Class whose instances carry a message -> the keyword arguments that hold it."""
ROOTS = {"HpotuneError", "ValueError", "RowLeftOut", "OSError", "Exception"}
"""Exceptions whose subclasses in hpotune carry messages."""
NOT_SHOWN = {"ValueError", "OSError", "Exception", "TypeError", "KeyError", "AssertionError", "RuntimeError"}
INTERNAL = {"NotShareable", "LostRank", "_NotSubmitted"}
"""Exceptions that are caught where they are understood; nobody reads their text."""
MISTAKES = ("Mistake", "Mistakes", "KeyPath, str")
"""Annotations of functions that give mistakes of a study file as (key, text)."""
NOTING = ("note", "warning", "print_note", "print_warning", "print_info", "_warn", "warn", "warn_user")
KEPT = ("warnings", "mistakes", "notes", "found_warnings")
NAMED = ("mistake", "warning", "_note", "error_text", "_advice", "conflict")
"""Parts of names of functions that return the text of a message."""
SPEAKING = (ast.Call, ast.Raise, ast.Tuple, ast.Assign, ast.Return, ast.Yield)
"""Nodes that may hold a message."""
DEPTH = 4
"""Calls through which a text is followed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message, with the file that makes it."""

    text: str
    kind: str
    """The class of the error, or Finding, Failure, StopReason, Mistake."""
    file: str
    """Relative to the package."""


@dataclass(slots=True)
class Source:
    """The parsed package."""

    trees: dict[str, ast.Module]
    functions: dict[str, list[tuple[str, ast.FunctionDef]]] = field(default_factory=dict)
    """Name -> (file, definition), of functions and methods."""
    constants: dict[tuple[str, str], ast.expr] = field(default_factory=dict)
    """(file, NAME) -> the value of a module's constant."""
    errors: set[str] = field(default_factory=set)
    """Classes of errors whose arguments are messages."""
    ancestors: dict[str, list[str]] = field(default_factory=dict)
    """Class -> itself and what it inherits from."""


def read_source(package: Path = PACKAGE) -> Source:
    files = [
        path
        for path in sorted(package.rglob("*.py"))
        if "templates" not in path.relative_to(package).parts[:1]
    ]
    source = Source(
        {str(path.relative_to(package)): ast.parse(path.read_text(encoding="utf-8")) for path in files}
    )
    bases: dict[str, list[str]] = {}
    for file, tree in source.trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                source.functions.setdefault(node.name, []).append((file, node))
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
        for node in tree.body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                source.constants |= {(file, t.id): node.value for t in targets if isinstance(t, ast.Name)}
    for name in bases:
        chain = source.ancestors[name] = list(_ancestors(name, bases))
        if set(chain) & ROOTS and name not in TEXT_ARGUMENTS and name not in INTERNAL:
            source.errors.add(name)
    return source


def _ancestors(name: str, bases: dict[str, list[str]]) -> Iterator[str]:
    yield name
    for base in bases.get(name, []):
        if base != name:  # optuna.study.Study and our Study
            yield from _ancestors(base, bases)


@dataclass(frozen=True, slots=True)
class Scope:
    """Where an expression stands."""

    source: Source
    file: str
    function: ast.FunctionDef | None
    depth: int = 0

    def inside(self, file: str, function: ast.FunctionDef) -> Scope:
        return Scope(self.source, file, function, self.depth + 1)


def called(function: ast.expr) -> str:
    """The dotted name of what is called; of the result of another call only what follows it."""
    if isinstance(function, ast.Name):
        return function.id
    return f"{called(function.value)}.{function.attr}" if isinstance(function, ast.Attribute) else ""


def templates(value: ast.expr, scope: Scope) -> list[str]:
    """The texts that an expression may give; empty where it only hands on what another library said."""
    if isinstance(value, ast.Constant):
        return [value.value] if isinstance(value.value, str) and value.value.strip() else []
    if isinstance(value, ast.JoinedStr):
        return [_joined(value, scope)]
    if isinstance(value, ast.IfExp):
        return [*templates(value.body, scope), *templates(value.orelse, scope)]
    if isinstance(value, ast.BoolOp):
        return [text for one in value.values for text in templates(one, scope)]
    if isinstance(value, ast.BinOp) and isinstance(value.op, (ast.Add, ast.Mod)):
        left, right = templates(value.left, scope), templates(value.right, scope)
        if isinstance(value.op, ast.Mod) or not right:
            return left
        return [a + b for a in left for b in right] or right
    if isinstance(value, ast.Starred):
        return templates(value.value, scope)
    if isinstance(value, (ast.ListComp, ast.GeneratorExp)):
        return templates(value.elt, scope)
    if isinstance(value, (ast.List, ast.Tuple, ast.Set)):
        return [text for one in value.elts for text in templates(one, scope)]
    if isinstance(value, ast.Name):
        return _of_name(value.id, scope)
    if isinstance(value, ast.Call):
        return _of_call(value, scope)
    if isinstance(value, ast.Subscript) and isinstance(value.value, (ast.Name, ast.Dict)):
        table = _constant(value.value.id, scope) if isinstance(value.value, ast.Name) else value.value
        return (
            [text for one in table.values for text in templates(one, scope)]
            if isinstance(table, ast.Dict)
            else []
        )
    return []


def _of_name(name: str, scope: Scope) -> list[str]:
    if scope.depth > DEPTH:
        return []
    deeper = Scope(scope.source, scope.file, scope.function, scope.depth + 1)
    found: list[str] = []
    if scope.function is not None:
        for node in ast.walk(scope.function):
            if (
                isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr))
                and node.value is not None
            ):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                    found += templates(node.value, deeper)
            if isinstance(node, ast.Call) and called(node.func) in (f"{name}.append", f"{name}.extend"):
                found += [text for one in node.args for text in templates(one, deeper)]
    constant = None if found else _constant(name, scope)
    return (
        templates(constant, deeper)
        if isinstance(constant, (ast.Constant, ast.JoinedStr, ast.BinOp))
        else found
    )


def _constant(name: str, scope: Scope) -> ast.expr | None:
    own = scope.source.constants.get((scope.file, name))
    others = [value for (_, other), value in scope.source.constants.items() if other == name]
    return own if own is not None else others[0] if len(others) == 1 else None


def _of_call(value: ast.Call, scope: Scope) -> list[str]:
    name = called(value.func).rpartition(".")[2]
    if name in ("join", "format", "replace", "strip", "rstrip", "removesuffix", "capitalize"):
        inner = templates(value.func.value, scope) if isinstance(value.func, ast.Attribute) else []
        inner = [text for text in inner if len(text) > 3]
        return inner or [text for one in value.args for text in templates(one, scope)]
    if name in ("str", "bounded", "list", "tuple", "sorted", "filter", "partial", "dict.fromkeys"):
        return [text for one in value.args for text in templates(one, scope)]
    if name == "nearest":
        return [ADVICE[name]]
    if name in scope.source.errors or name in NOT_SHOWN:
        return [text for one in value.args for text in templates(one, scope)]
    defined = scope.source.functions.get(name, [])
    own = [one for one in defined if one[0] == scope.file]
    chosen = own or (defined if len(defined) == 1 else [])
    if scope.depth > DEPTH or not chosen:
        return []
    return [
        text
        for file, function in chosen
        for node in ast.walk(function)
        if isinstance(node, (ast.Return, ast.Yield)) and node.value is not None
        for text in templates(node.value, scope.inside(file, function))
    ]


def _joined(value: ast.JoinedStr, scope: Scope) -> str:
    parts = []
    for part in value.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        else:
            assert isinstance(part, ast.FormattedValue)
            parts.append(placeholder(part.value, scope))
    return "".join(parts)


ADVICE = {
    "nearest": "[did you mean …?] valid: …",
    "explain": "…",
    "inner_reason": "REASON",
    "reason": "REASON",
}


def placeholder(value: ast.expr, scope: Scope) -> str:
    """`{name}` for a value; a short text as it is, where it is one of the code's own."""
    if isinstance(value, ast.Constant):
        return str(value.value)
    if isinstance(value, ast.Attribute):
        return (
            f"{{{value.attr}}}" if value.attr not in ("name", "text", "path") else f"{{{ast.unparse(value)}}}"
        )
    if isinstance(value, ast.Name):
        return f"{{{value.id}}}"
    if isinstance(value, ast.Subscript):
        return placeholder(value.value, scope)
    if isinstance(value, ast.IfExp):
        texts = [*templates(value.body, scope), *templates(value.orelse, scope)]
        other = (
            ""
            if len(texts) > 1
            else placeholder(value.body if not templates(value.body, scope) else value.orelse, scope)
        )
        short = [text for text in texts if len(text) < 60]
        if isinstance(value.orelse, ast.Constant) and value.orelse.value == "":
            return f"[{short[0]}]" if short else f"[{placeholder(value.body, scope)}]"
        return "|".join(short) if len(short) > 1 else "|".join(filter(None, [*short, other])) or "{…}"
    if isinstance(value, ast.Call):
        name = called(value.func).rpartition(".")[2]
        if name in ADVICE:
            return ADVICE[name]
        if name == "location":
            return "FILE:LINE"
        if value.args and name in (
            "shown",
            "quote",
            "str",
            "repr",
            "len",
            "number",
            "dotted",
            "join",
            "sorted",
            "length",
            "float",
            "int",
            "one_line",
            "Path",
            "abs",
            "min",
            "max",
            "round",
            "type",
        ):
            return placeholder(value.args[0], scope)
        if isinstance(value.func, ast.Attribute) and isinstance(value.func.value, (ast.Name, ast.Attribute)):
            return placeholder(value.func.value, scope)
        return f"{{{name.strip('_')}}}"
    if isinstance(value, (ast.GeneratorExp, ast.ListComp)):
        return placeholder(value.generators[0].iter, scope)
    if isinstance(value, ast.BinOp):
        return placeholder(value.left if not isinstance(value.left, ast.Constant) else value.right, scope)
    return "{…}"


def messages(source: Source) -> list[Message]:
    """All messages, in the order of files, each text once a file."""
    found: dict[tuple[str, str], Message] = {}
    for file, tree in source.trees.items():
        for function, node in _nodes(tree):
            if not isinstance(node, SPEAKING):
                continue
            for kind, text in _made_by(node, Scope(source, file, function)):
                clean = " ".join(text.split())
                if is_message(clean):
                    found.setdefault((file, clean), Message(text=clean, kind=kind, file=file))
    return list(found.values())


def _nodes(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | None, ast.AST]]:
    """Each node with the outermost function around it."""

    def walk(
        node: ast.AST, function: ast.FunctionDef | None
    ) -> Iterator[tuple[ast.FunctionDef | None, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            inner = child if isinstance(child, ast.FunctionDef) and function is None else function
            yield inner, child
            yield from walk(child, inner)

    yield from walk(tree, None)


def _made_by(node: ast.AST, scope: Scope) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Call):
        name = called(node.func).rpartition(".")[2]
        if name in TEXT_ARGUMENTS:
            named = {one.arg: one.value for one in node.keywords}
            texts = [templates(named[key], scope) for key in TEXT_ARGUMENTS[name] if key in named]
            first = texts[0] if texts else []
            advice = texts[1] if len(texts) > 1 else []
            for text in first:
                yield name, text + (f"; {advice[0]}" if advice else "")
        elif name in scope.source.errors and name not in NOT_SHOWN:
            yield from ((name, text) for one in node.args for text in templates(one, scope))
    raised = node.exc if isinstance(node, ast.Raise) else None
    if isinstance(raised, ast.Call) and called(raised.func) == "ValueError":
        yield from (("ValueError", text) for one in raised.args for text in templates(one, scope))
    if isinstance(node, ast.Call):
        yield from (("Note", text) for one in _noted(node) for text in templates(one, scope))
    yield from (("Mistake", text) for one in _mistakes(node, scope) for text in templates(one, scope))


def _noted(call: ast.Call) -> list[ast.expr]:
    """The arguments of calls that print or keep a note, a warning or a mistake."""
    owner, _, method = called(call.func).rpartition(".")
    if method in NOTING:
        return call.args[:1]
    kept = owner.rpartition(".")[2] in KEPT and method in ("append", "extend")
    return call.args if kept else []


@cache
def annotations(function: ast.FunctionDef) -> tuple[str, bool]:
    """What a function returns, as text, and whether it returns or fills mistakes."""
    taken = [ast.unparse(one.annotation) for one in function.args.args if one.annotation is not None]
    returned = "" if function.returns is None else ast.unparse(function.returns)
    return returned, any(name in text for name in MISTAKES for text in (returned, *taken))


def _mistakes(node: ast.AST, scope: Scope) -> Iterator[ast.expr]:
    """Texts of mistakes: of (key, text), of `found[key] = text`, and what functions with such a name return."""
    function = scope.function
    if function is None:
        return
    returned, gives_mistakes = annotations(function)
    if gives_mistakes:
        if isinstance(node, ast.Tuple) and len(node.elts) == 2:
            yield node.elts[1]
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            yield node.value
        if isinstance(node, ast.Call) and called(node.func).endswith(".setdefault") and len(node.args) == 2:
            yield node.args[1]
    if scope.file.partition("/")[0] in ("reporting", "planning"):  # advice and captions; the tables have them
        return
    is_text = "str" in returned and "dict" not in returned
    if is_text and any(name in function.name for name in NAMED):
        value = node.value if isinstance(node, (ast.Return, ast.Yield)) else None
        if value is not None:
            yield value


def is_message(text: str) -> bool:
    """Whether it says something: more than a name or a placeholder."""
    fixed = text
    while "{" in fixed and "}" in fixed[fixed.index("{") :]:
        start = fixed.index("{")
        fixed = fixed[:start] + fixed[fixed.index("}", start) + 1 :]
    return len([word for word in fixed.split() if len(word.strip(":;,.")) > 1]) >= 2


def unresolved(source: Source) -> list[str]:
    """Raise sites of hpotune's errors of which no text was found: `file:line`."""
    return [
        f"{file}:{node.lineno}: {ast.unparse(node.exc)[:100]}"
        for file, tree in source.trees.items()
        for function, node in _nodes(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        if (name := called(node.exc.func).rpartition(".")[2]) in source.errors and name not in NOT_SHOWN
        if not any(templates(one, Scope(source, file, function)) for one in node.exc.args)
    ]

"""Expressions over other values of a study, such as `expr: "2 * lora.r"`. Parsed and evaluated; never runs other code.

Allowed: numbers, dotted names, + - * / // % **, comparisons, and, or, not, `a if b else c`, and the functions
min, max, abs, round, int, float, sqrt, log2, log10. A number is finite and real at every step, and the size of the
arithmetic is bounded before it is computed: no expression can occupy a login node.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

LONGEST = 2_000
"""Characters of an expression."""
MOST_TERMS = 300
"""Names, numbers, operators and calls of an expression."""
DEEPEST = 100
"""Operations inside of each other."""
LARGEST = 2**1023
"""Magnitude of a whole number; floats end there too."""
MOST_DIGITS = 308
"""Second argument of round()."""
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_SIGN: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "round": round,
    "int": int,
    "float": float,
    "sqrt": math.sqrt,
    "log2": math.log2,
    "log10": math.log10,
}


@lru_cache(maxsize=1024)
def names_in(text: str) -> frozenset[str]:
    """The dotted names that an expression reads.

    Raises: ValueError if the text is not an allowed expression.
    """
    return frozenset(_names(_parse(text)))


def is_condition(text: str) -> bool:
    """Whether a valid expression is true or false: a comparison, and, or, not."""
    node = _parse(text)
    negated = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    return negated or isinstance(node, (ast.Compare, ast.BoolOp))


def evaluate(text: str, values: Mapping[str, object]) -> Any:  # noqa: ANN401 - a number or a truth value
    """The value of the expression; an int if all operations give ints.

    Raises: ValueError for an unknown name, a construct that is not allowed, or arithmetic that fails.
    """
    try:
        found = _value(_parse(text), values)
        return found if isinstance(found, str) or not isinstance(found, (int, float)) else _bounded(found)
    except (ArithmeticError, TypeError) as error:
        raise ValueError(f"cannot be computed: {error}") from None


@lru_cache(maxsize=1024)
def _parse(text: str) -> ast.expr:
    if len(text) > LONGEST:
        raise ValueError(f"has {len(text)} characters; needs at most {LONGEST}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's remarks on odd numbers such as `1or 2`
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"is not an expression ({getattr(error, 'msg', error)})") from None
    _check_size(tree)
    return tree


def _check_size(tree: ast.expr) -> None:
    """Raises: ValueError for too many terms, or too many levels of them. Not recursive: the tree may be deep."""
    terms, level = 0, [tree]
    for _ in range(DEEPEST):
        terms += len(level)
        if terms > MOST_TERMS:
            raise ValueError(f"has more than {MOST_TERMS} terms; needs fewer")
        level = [
            child for node in level for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)
        ]
        if not level:
            return
    raise ValueError(f"has more than {DEEPEST} operations inside of each other; needs fewer")


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        prefix = _dotted(node.value)
        return f"{prefix}.{node.attr}" if prefix else None
    return None


def _names(node: ast.expr) -> list[str]:
    dotted = _dotted(node)
    if dotted:
        return [dotted]
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS or node.keywords:
            raise ValueError(f"calls {ast.unparse(node)[:80]}; allowed functions: {', '.join(FUNCTIONS)}")
        return [name for arg in node.args for name in _names(arg)]
    if not _allowed(node):
        raise ValueError(_forbidden(node))
    return [
        name for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr) for name in _names(child)
    ]


def _allowed(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return type(node.op) in _BINARY
    if isinstance(node, ast.UnaryOp):
        return type(node.op) in _SIGN
    if isinstance(node, ast.Compare):
        return all(type(op) in _COMPARE for op in node.ops)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) or _is_finite(node.value)
    return isinstance(node, (ast.BoolOp, ast.IfExp))


def _is_finite(value: object) -> bool:
    """Whether a value is a finite real number; true and false are 1 and 0."""
    if isinstance(value, int):
        return abs(value) <= LARGEST
    return isinstance(value, float) and math.isfinite(value)


def _bounded(value: object) -> Any:  # noqa: ANN401
    """The number.

    Raises: ValueError for one that is not finite, not real, or too large.
    """
    if not _is_finite(value):
        raise ValueError("gives no finite real number")
    return value


def _value(node: ast.expr, values: Mapping[str, object]) -> Any:  # noqa: ANN401
    dotted = _dotted(node)
    if dotted:
        if dotted not in values:
            raise ValueError(
                f"reads {dotted!r}, which has no value here; a conditional value needs the same `when`"
            )
        return values[dotted]
    if isinstance(node, ast.Constant) and _allowed(node):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _arithmetic(node.op, _value(node.left, values), _value(node.right, values))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _SIGN:
        operand = _value(node.operand, values)
        return not operand if isinstance(node.op, ast.Not) else _SIGN[type(node.op)](_number(operand))
    if isinstance(node, ast.Compare) and _allowed(node):
        sides = [_value(side, values) for side in (node.left, *node.comparators)]
        pairs = zip(node.ops, sides, sides[1:], strict=False)
        return all(_COMPARE[type(op)](left, right) for op, left, right in pairs)
    if isinstance(node, ast.BoolOp):
        every = isinstance(node.op, ast.And)
        return (all if every else any)(bool(_value(side, values)) for side in node.values)
    if isinstance(node, ast.IfExp):
        return _value(node.body if _value(node.test, values) else node.orelse, values)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        return _call(node.func.id, [_value(arg, values) for arg in node.args])
    raise ValueError(_forbidden(node))


def _arithmetic(op: ast.operator, left: object, right: object) -> object:
    for side in (left, right):
        _number(side)
    assert isinstance(right, (int, float)), "checked above"
    if isinstance(op, ast.Pow) and abs(right) > 64:  # 2 ** 10 ** 9 would block the login node
        raise ValueError("has an exponent above 64")
    return _bounded(_BINARY[type(op)](left, right))


def _number(value: object) -> int | float:
    """The value if it is a finite number; operands bound the size of what is computed from them.

    Raises: ValueError for another value.
    """
    if not isinstance(value, (int, float)):
        raise ValueError(f"computes with {_short(value)}, which is not a number")
    bounded: int | float = _bounded(value)
    return bounded


def _call(name: str, arguments: list[Any]) -> object:
    for argument in arguments:
        if isinstance(argument, (int, float)):
            _bounded(argument)
        elif isinstance(argument, str) and len(argument) > MOST_DIGITS:
            raise ValueError(f"cannot be computed: {name} of {len(argument)} characters")
    if (
        name == "round"
        and len(arguments) > 1
        and isinstance(arguments[1], int)
        and abs(arguments[1]) > MOST_DIGITS
    ):
        raise ValueError(f"rounds to {arguments[1]} digits; needs at most {MOST_DIGITS}")
    try:
        found = FUNCTIONS[name](*arguments)
    except ValueError:
        raise ValueError(f"cannot be computed: {name}({', '.join(map(_short, arguments))})") from None
    return _bounded(found)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _forbidden(node: ast.expr) -> str:
    rule = "allowed are numbers, dotted names, + - * / // % **, comparisons, and, or, not, `a if b else c`"
    return f"holds {_short(ast.unparse(node))}; {rule}"

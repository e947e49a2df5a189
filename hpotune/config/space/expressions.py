"""Expressions over other values of a study, such as `expr: "2 * lora.r"`. Parsed and evaluated; never runs other code.

Allowed: numbers, dotted names, + - * / // % **, comparisons, and, or, not, `a if b else c`, and the functions
min, max, abs, round, int, float, sqrt, log2, log10.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

Number = float
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
        return _value(_parse(text), values)
    except (ArithmeticError, TypeError) as error:
        raise ValueError(f"cannot be computed: {error}") from None


@lru_cache(maxsize=256)
def _parse(text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f"is not an expression ({getattr(error, 'msg', error)})") from None


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
            raise ValueError(f"calls {ast.unparse(node)}; allowed functions: {', '.join(FUNCTIONS)}")
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
    return isinstance(node, (ast.Constant, ast.BoolOp, ast.IfExp))


def _value(node: ast.expr, values: Mapping[str, object]) -> Any:  # noqa: ANN401
    dotted = _dotted(node)
    if dotted:
        if dotted not in values:
            raise ValueError(
                f"reads {dotted!r}, which has no value here; a conditional value needs the same `when`"
            )
        return values[dotted]
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str)):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _arithmetic(node.op, _value(node.left, values), _value(node.right, values))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _SIGN:
        return _SIGN[type(node.op)](_value(node.operand, values))
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
        if not isinstance(side, (int, float)):
            raise ValueError(f"computes with {side!r}, which is not a number")
    assert isinstance(right, (int, float)), "checked above"
    if isinstance(op, ast.Pow) and abs(right) > 64:  # 2 ** 10 ** 9 would block the login node
        raise ValueError("has an exponent above 64")
    return _BINARY[type(op)](left, right)


def _call(name: str, arguments: list[Any]) -> object:
    try:
        return FUNCTIONS[name](*arguments)
    except ValueError:
        raise ValueError(f"cannot be computed: {name}({', '.join(map(repr, arguments))})") from None


def _forbidden(node: ast.expr) -> str:
    rule = "allowed are numbers, dotted names, + - * / // % **, comparisons, and, or, not, `a if b else c`"
    return f"holds {ast.unparse(node)!r}; {rule}"

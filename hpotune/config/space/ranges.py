"""The ranges of a study and the points inside them: plain data, and a point put into the file's values.

The name of a range is the dotted path of its key (`lora.r`); Optuna knows the parameter by it. No sampling here:
search/ draws, this file says what may be drawn. range_parsing.py reads ranges from a study file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from hpotune.config.space import expressions
from hpotune.config.yaml_source import KeyPath, Value

Confidence = Literal["weak", "medium", "strong"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """One value that is searched, or that follows from others (an expression)."""

    where: KeyPath
    kind: Literal["float", "int", "choice", "expr"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    options: tuple[Value, ...] = ()
    text: str = ""
    ordered: bool = False
    """Of a choice: whether neighbouring options are similar."""
    measure: tuple[float, float] | None = None
    """Mean and standard deviation of its normal distribution (of the natural logarithm if `log`); None: uniform."""
    prior: Value = None
    confidence: Confidence = "weak"
    """How close to `prior` the best value is believed to lie."""
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The dotted path of its key: the name of the Optuna parameter."""
        return dotted(self.where)

    @property
    def corners(self) -> tuple[Value, ...]:
        """The values that are validated: both ends, or every option."""
        if self.kind == "choice":
            return self.options
        number = int if self.kind == "int" else float  # the type in which the value arrives
        return number(self.low), number(self.high)

    @property
    def labels(self) -> tuple[bool | int | float | str | None, ...]:
        """Options as Optuna stores them: unchanged if all are scalars and differ, else each as JSON text.

        Optuna looks an option up by Python's equality, in which 1, 1.0 and true are one value.
        """
        scalars = [option for option in self.options if not isinstance(option, (list, dict))]
        if len(set(scalars)) == len(self.options):
            return tuple(scalars)
        return tuple(json.dumps(option) for option in self.options)


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """All ranges of a study; each comes after those that it reads."""

    ranges: tuple[Range, ...]
    constraints: tuple[str, ...] = ()
    """Conditions on a point that are checked before it runs."""
    fixed: Mapping[str, Value] = field(default_factory=dict)
    """The values of the study file that are not ranges, by dotted name."""

    @property
    def searched(self) -> tuple[Range, ...]:
        """The ranges that a sampler draws: all but the expressions."""
        return tuple(r for r in self.ranges if r.kind != "expr")

    def violated(self, drawn: Mapping[str, Value]) -> list[int]:
        """The indices of the constraints that a point violates.

        A constraint that reads a value which the point does not have (a range whose `when` does not hold) is satisfied;
        one that cannot be computed (a division by zero) is violated.
        """
        if not self.constraints:
            return []
        known = self._known_values(drawn)
        return [index for index, text in enumerate(self.constraints) if not _is_satisfied(text, known)]

    def _known_values(self, drawn: Mapping[str, Value]) -> dict[str, Value]:
        """The values of a point by name: drawn ones may be missing, expressions may fail."""
        known = dict(self.fixed)
        for r in self.ranges:
            if not active(r, known):
                continue
            if r.kind == "expr":
                with suppress(ValueError):
                    known[r.name] = expressions.evaluate(r.text, known)
            elif r.name in drawn:
                known[r.name] = drawn[r.name]
        return known


def _is_satisfied(constraint: str, known: Mapping[str, Value]) -> bool:
    if not expressions.names_in(constraint) <= known.keys():
        return True
    try:
        return bool(expressions.evaluate(constraint, known))
    except ValueError:
        return False


@lru_cache(maxsize=4096)
def dotted(where: KeyPath) -> str:
    """`("lora", "r")` as `lora.r`."""
    return ".".join(map(str, where))


def needs(r: Range) -> set[str]:
    """The names a range reads."""
    return set(r.when) | (set(expressions.names_in(r.text)) if r.kind == "expr" else set())


def active(r: Range, values: Mapping[str, Value]) -> bool:
    """Whether the range's `when` holds for these values, by name."""
    return all(
        name in values and any(same(values[name], value) for value in wanted)
        for name, wanted in r.when.items()
    )


def same(one: Value, other: Value) -> bool:
    """Whether two values mean the same: 1 and 1.0 do, but 1 and true, or 1 and "1", do not; lists item by item."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return isinstance(one, bool) == isinstance(other, bool) and one == other


class ExpressionError(ValueError):
    """An expression that cannot be computed at a point."""

    def __init__(self, r: Range, error: ValueError) -> None:
        super().__init__(f"{r.name}: expr {r.text!r} {error}")
        self.range = r


def put_point(template: dict[str, Value], space: Space, drawn: Mapping[str, Value]) -> dict[str, Value]:
    """The file's values with a point put in: drawn values instead of ranges, expressions computed.

    Ranges that are inactive at this point are left out.
    Raises: ExpressionError for an expression that cannot be computed at this point.
    """
    values = without(template, [r.where for r in space.ranges])
    names = {r.name for r in space.ranges}
    known = {name: value for name, value in leaves(values) if name not in names}
    for r in space.ranges:
        if not active(r, known):
            continue
        try:
            value = expressions.evaluate(r.text, known) if r.kind == "expr" else drawn[r.name]
        except ValueError as error:
            raise ExpressionError(r, error) from None
        known[r.name] = value
        _put(values, r.where, value)
    return values


def leaves(value: Value, where: KeyPath = ()) -> Iterable[tuple[str, Value]]:
    """Every scalar and list of a tree by its dotted name."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*where, key))
    else:
        yield dotted(where), value
        if isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, (dict, list)):
                    yield from leaves(item, (*where, index))


def _parent(values: dict[str, Value], where: KeyPath) -> dict[str, Value] | list[Value]:
    node: Value = values
    for key in where[:-1]:
        node = node[key]  # type: ignore[index]
    assert isinstance(node, (dict, list)), "a range is a key of a mapping or an item of a list"
    return node


def without(values: dict[str, Value], keys: Iterable[KeyPath]) -> dict[str, Value]:
    """A copy of the values without these keys; items of lists stay, because their index is part of their name."""
    copy = json.loads(json.dumps(values))
    assert isinstance(copy, dict), "a mapping gives a mapping"
    for where in keys:
        if where[0] in copy:
            _remove(copy, where)
    return copy


def _remove(values: dict[str, Value], where: KeyPath) -> None:
    parent = _parent(values, where)
    if isinstance(parent, dict):
        parent.pop(str(where[-1]), None)


def _put(values: dict[str, Value], where: KeyPath, value: Value) -> None:
    parent, key = _parent(values, where), where[-1]
    if isinstance(parent, dict):
        parent[str(key)] = value
    else:
        assert isinstance(key, int), "an item of a list has a number"
        parent[key] = value

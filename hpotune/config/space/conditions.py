"""The names that `when` and `expr` read, and conditions that can never hold. Pure functions of a file's values."""

from __future__ import annotations

from collections.abc import Iterator

from hpotune.config.comparability import SEARCHABLE
from hpotune.config.space import expressions
from hpotune.config.space.ranges import Range, Space, needs, same
from hpotune.config.yaml_source import Mistake, Value
from hpotune.errors import nearest


def mistakes(space: Space) -> Iterator[Mistake]:
    """An error for each name that is read and does not exist, and for each condition that can never hold."""
    fixed = searchable_values(space)
    by_name = {r.name: r for r in space.ranges}
    for r in space.ranges:
        for name in sorted(needs(r)):
            part = "when" if name in r.when else "expr"
            if name not in by_name and name not in fixed:
                known = nearest(name, [*fixed, *by_name])
                yield (
                    (*r.where, part, name),
                    f"{r.name}: {part} reads {name!r}, which does not exist; {known}",
                )
        for name, wanted in r.when.items():
            exists = name in by_name or name in fixed
            never = _never(wanted, by_name.get(name), fixed.get(name)) if exists else None
            if never:
                yield (*r.where, "when", name), f"{r.name}: when: {name} is never {never}"


def searchable_values(space: Space) -> dict[str, Value]:
    """The fixed values that conditions and expressions may read, by dotted name."""
    return {name: value for name, value in space.fixed.items() if name.partition(".")[0] in SEARCHABLE}


def possible_values(wanted: tuple[Value, ...], r: Range) -> list[Value]:
    """The values of a condition that a range can take."""
    if r.kind == "choice":
        return [option for value in wanted for option in r.options if same(option, value)]
    numbers = [value for value in wanted if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return [value for value in numbers if r.low <= value <= r.high]


def _never(wanted: tuple[Value, ...], other: Range | None, fixed: Value) -> str | None:
    """Why a condition cannot hold; None if it can, or if it depends on an expression."""
    asked = " or ".join(map(repr, wanted))
    if other is None:
        return None if any(same(fixed, value) for value in wanted) else f"{asked}: it is {fixed!r}"
    if other.kind == "expr":
        holds = not expressions.is_condition(other.text) or any(isinstance(value, bool) for value in wanted)
        return None if holds else f"{asked}: its expression is true or false"
    if possible_values(wanted, other):
        return None
    if other.kind == "choice":
        lists = any(isinstance(option, list) for option in other.options)
        hint = "; a list as one value is written [[…]]" if lists else ""
        return f"{asked}; its choices are {', '.join(map(repr, other.options))}{hint}"
    return f"{asked}: its range is {other.low:g} to {other.high:g}"

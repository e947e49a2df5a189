"""Constraints known before a trial runs: conditions over the values of a point, such as `lora.r * train.x <= 64`.

One that reads a value which a point does not have (a range whose `when` does not hold) says nothing of that point; one
that cannot be computed there (a division by zero) is broken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from hpotune.config.comparability import SEARCHABLE
from hpotune.config.space import expressions
from hpotune.config.space.ranges import Space, active, leaves, without
from hpotune.config.yaml_source import KeyPath, Value
from hpotune.errors import nearest


def fixed_values(template: Mapping[str, Value], space: Space) -> dict[str, Value]:
    """The values that no range stands at, by dotted name."""
    names = {r.name for r in space.ranges}
    values = without(dict(template), [r.where for r in space.ranges])
    return {name: value for name, value in leaves(values) if name not in names}


def known_at(space: Space, drawn: Mapping[str, Value], fixed: Mapping[str, Value]) -> dict[str, Value]:
    """Every value of a point by name, as far as it can be told: drawn ones may be missing, expressions may fail."""
    known = dict(fixed)
    for r in space.ranges:
        if not active(r, known):
            continue
        if r.kind == "expr":
            with suppress(ValueError):
                known[r.name] = expressions.evaluate(r.text, known)
        elif r.name in drawn:
            known[r.name] = drawn[r.name]
    return known


def broken(space: Space, drawn: Mapping[str, Value], fixed: Mapping[str, Value]) -> list[int]:
    """Which constraints a point breaks, by their place in the file."""
    if not space.constraints:
        return []
    known = known_at(space, drawn, fixed)
    return [index for index, text in enumerate(space.constraints) if not _holds(text, known)]


def _holds(text: str, known: Mapping[str, Value]) -> bool:
    if not expressions.names_in(text) <= known.keys():
        return True
    try:
        return bool(expressions.evaluate(text, known))
    except ValueError:
        return False


def texts_of(values: Mapping[str, Value]) -> dict[KeyPath, str]:
    """The constraints of a file by their places; a single one stands without a list."""
    found = values.get("constraints")
    if isinstance(found, str):
        return {("constraints",): found}
    listed = found if isinstance(found, list) else []
    return {("constraints", index): text for index, text in enumerate(listed) if isinstance(text, str)}


def mistakes(values: Mapping[str, Value], space: Space) -> Iterator[tuple[KeyPath, str]]:
    """Place and text of each constraint that is none, or reads what stands nowhere."""
    fixed = fixed_values({key: value for key, value in values.items() if key in SEARCHABLE}, space)
    ranges = {r.name for r in space.ranges}
    for where, text in texts_of(values).items():
        try:
            read = expressions.names_in(text)
        except ValueError as error:
            yield where, f"constraints: {text!r} {error}"
            continue
        unknown = sorted(read - fixed.keys() - ranges)
        if unknown:
            known = nearest(unknown[0], [*fixed, *ranges])
            yield where, f"constraints: {text!r} reads {unknown[0]!r}, which stands nowhere; {known}"
        elif not expressions.is_condition(text):
            yield where, f"constraints: {text!r} says neither yes nor no; needs a comparison, such as a <= b"
        elif not read & ranges:
            yield where, f"constraints: {text!r} reads nothing that is searched; remove it, or name a range"

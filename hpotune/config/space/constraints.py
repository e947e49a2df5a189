"""Constraints that are checked before a trial runs: conditions over a point's values, such as `lora.r * train.x <= 64`.

A constraint that reads a value which the point does not have (a range whose `when` does not hold) is kept; one that
cannot be computed (a division by zero) is broken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from hpotune.config.space import expressions
from hpotune.config.space.conditions import searchable_values
from hpotune.config.space.ranges import Space, active
from hpotune.config.yaml_source import KeyPath, Mistake, Mistakes, Value
from hpotune.errors import nearest


def known_at(space: Space, drawn: Mapping[str, Value]) -> dict[str, Value]:
    """The known values of a point by name: drawn ones may be missing, expressions may fail."""
    known = dict(space.fixed)
    for r in space.ranges:
        if not active(r, known):
            continue
        if r.kind == "expr":
            with suppress(ValueError):
                known[r.name] = expressions.evaluate(r.text, known)
        elif r.name in drawn:
            known[r.name] = drawn[r.name]
    return known


def broken(space: Space, drawn: Mapping[str, Value]) -> list[int]:
    """The indices of the constraints that a point breaks."""
    if not space.constraints:
        return []
    known = known_at(space, drawn)
    return [index for index, text in enumerate(space.constraints) if not _holds(text, known)]


def _holds(text: str, known: Mapping[str, Value]) -> bool:
    if not expressions.names_in(text) <= known.keys():
        return True
    try:
        return bool(expressions.evaluate(text, known))
    except ValueError:
        return False


def texts_of(values: Mapping[str, Value]) -> dict[KeyPath, str]:
    """The constraints of a file by their keys; a single one is not in a list."""
    found = values.get("constraints")
    if isinstance(found, str):
        return {("constraints",): found}
    listed = found if isinstance(found, list) else []
    return {("constraints", index): text for index, text in enumerate(listed) if isinstance(text, str)}


def with_constraints(values: Mapping[str, Value], space: Space, mistakes: Mistakes) -> Space:
    """The space with the constraints of the file; without any if one of them is wrong: `mistakes` gains the errors."""
    texts = texts_of(values)
    errors = dict(_errors(texts, space))
    mistakes.update({key: text for key, text in errors.items() if key not in mistakes})
    return space if errors else replace(space, constraints=tuple(texts.values()))


def _errors(texts: Mapping[KeyPath, str], space: Space) -> Iterator[Mistake]:
    """An error for each constraint that is not an expression of searched values."""
    fixed = searchable_values(space)
    ranges = {r.name for r in space.ranges}
    for where, text in texts.items():
        try:
            read = expressions.names_in(text)
        except ValueError as error:
            yield where, f"constraints: {text!r} {error}"
            continue
        unknown = sorted(read - fixed.keys() - ranges)
        if unknown:
            known = nearest(unknown[0], [*fixed, *ranges])
            yield where, f"constraints: {text!r} reads {unknown[0]!r}, which does not exist; {known}"
        elif not expressions.is_condition(text):
            yield where, f"constraints: {text!r} is not a condition; needs a comparison, such as a <= b"
        elif not read & ranges:
            yield where, f"constraints: {text!r} reads no searched value; remove it, or use a range"

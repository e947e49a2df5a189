"""The key `constraints` of a study file: its texts and their errors. `Space.violated` checks points. Reads no files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from hpotune.config.space import expressions
from hpotune.config.space.conditions import searchable_values
from hpotune.config.space.ranges import Space
from hpotune.config.yaml_source import KeyPath, Mistake, Mistakes, Value
from hpotune.errors import nearest

MOST = 100
"""Constraints of a file. `check` computes all of them at thousands of points."""


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
    if len(texts) > MOST:
        yield ("constraints", MOST), f"constraints: has {len(texts)} conditions; needs at most {MOST}"
        return
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

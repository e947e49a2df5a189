"""The config of a study at the corners of its space: every end of a range is validated, and the first corner is kept.

An error is kept once for each key, so a value that is wrong at ten corners is reported once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from hpotune.config import messages
from hpotune.config.library_values import Library, value_error
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.space.conditions import possible_values
from hpotune.config.space.range_parsing import mappings, range_kind
from hpotune.config.space.ranges import (
    ExpressionError,
    Range,
    Space,
    dotted,
    leaves,
    needs,
    put_point,
    without,
)
from hpotune.config.yaml_source import KeyPath, Mistakes, Value

EXPRESSION_CORNERS = 64
"""Combinations of corners at which an expression that reads several ranges is computed."""
EXPRESSION_CORNERS_TOGETHER = 1_000
"""The same of all expressions of a file together; each has at least four."""


def config_at_corners(values: dict[str, Value], space: Space, mistakes: Mistakes) -> StudyConfig | None:
    """The config at the first corner; None if it is wrong. `mistakes` gains the errors of every corner.

    Corners that break a constraint are left out, and those that differ in a param that nothing reads: a param has any
    value.
    """
    first, *others = corner_points(space, params=False)
    config = _at(values, space, first, mistakes)
    search = values.get("search")
    if isinstance(search, dict) and "start_from" in search:  # checked once; every corner copies what there is
        values = {**values, "search": {key: value for key, value in search.items() if key != "start_from"}}
    for drawn in others:
        _at(values, space, drawn, mistakes)
    return config


def corner_points(space: Space, *, params: bool = True) -> list[dict[str, Value]]:
    """The drawn values at the corners of the space that break no constraint, the first corner of every range first.

    If all of them break one, all are returned. `params`: whether corners of params count that no other range reads.
    """
    every = [*_points(space, params=params)]
    return [drawn for drawn in every if not space.violated(drawn)] or every


def config_without_ranges(values: dict[str, Value], mistakes: Mistakes) -> None:
    """`mistakes` gains the errors of a file whose ranges are wrong, as far as they concern no range."""
    ranges = [key for key, value in mappings(values) if range_kind(value) and key]

    def touches(key: KeyPath) -> bool:
        return any(key[: len(other)] == other or other[: len(key)] == key for other in ranges)

    found: Mistakes = {}
    _validated(without(values, ranges), found)
    for key, text in found.items():
        if not touches(key):
            mistakes.setdefault(key, text)


def _points(space: Space, *, params: bool) -> Iterator[dict[str, Value]]:
    """Drawn values: all first corners, then every other corner of each range, then those that expressions combine."""
    first = {r.name: r.corners[0] for r in space.searched}
    yield first
    by_name = {r.name: r for r in space.ranges}
    read = {name for r in space.ranges for name in needs(r)}
    activating = _activating(space)
    for r in space.searched:
        if not params and r.where[0] == "params" and r.name not in read:
            continue
        for corner in r.corners[1:]:
            yield first | activating[r.name] | {r.name: corner}
    sources = _sources(space)
    number = len(space.ranges) - len(space.searched)
    most = max(4, min(EXPRESSION_CORNERS, EXPRESSION_CORNERS_TOGETHER // max(1, number)))
    for r in space.ranges:
        names = sorted(name for name in sources[r.name] if by_name[name].kind != "expr")
        if r.kind == "expr" and len(names) > 1:
            combined = itertools.product(*(by_name[name].corners for name in names))
            for corners in itertools.islice(combined, most):
                yield first | activating[r.name] | dict(zip(names, corners, strict=True))


def _sources(space: Space) -> dict[str, set[str]]:
    """Range -> the ranges that it reads, directly or through others; each comes after those that it reads."""
    found: dict[str, set[str]] = {}
    for r in space.ranges:
        direct = {name for name in needs(r) if name in found}
        found[r.name] = direct.union(*(found[name] for name in direct))
    return found


def _activating(space: Space) -> dict[str, dict[str, Value]]:
    """Range -> values of other ranges at which it is active."""
    by_name = {r.name: r for r in space.ranges}
    found: dict[str, dict[str, Value]] = {}
    for r in space.ranges:
        drawn: dict[str, Value] = {}
        for name, wanted in r.when.items():
            other = by_name.get(name)
            if other and other.kind != "expr":
                value = next(iter(possible_values(wanted, other)), other.corners[0])
                drawn |= found.get(name, {}) | {name: value}
        found[r.name] = drawn
    return found


def _at(
    values: dict[str, Value], space: Space, drawn: Mapping[str, Value], mistakes: Mistakes
) -> StudyConfig | None:
    """The config at one point. Errors are kept, but for those of expressions that read a wrong value."""
    found: Mistakes = {}
    failed: Mistakes = {}
    try:
        sections = put_point(values, space, drawn)
    except ExpressionError as error:
        failed[error.range.where] = f"{error}{_values_read(error.range, values, drawn)}"
        sections = put_point(values, Space(ranges=space.searched), drawn)
    config = _validated(sections, found)
    known = dict(leaves(sections))
    expressions = {r.where: r for r in space.ranges if r.kind == "expr"}
    wrong = {dotted(key) for key in found.keys() | mistakes.keys()}
    for key, text in (found | failed).items():
        expression = expressions.get(key)
        if expression is None:
            mistakes.setdefault(key, text)
        elif not needs(expression) & wrong and not any(other[: len(key)] == key for other in mistakes):
            mistakes.setdefault(key, text + (_origin(expression, known) if key in found else ""))
    return None if failed else config


def _origin(r: Range, known: dict[str, Value]) -> str:
    """The expression and the values that gave a wrong value: the file shows neither."""
    hint = "; // and round() give whole numbers" if isinstance(known.get(r.name), float) else ""
    return f" (expr {r.text!r}{_values_read(r, known, {})}{hint})"


def _values_read(r: Range, values: dict[str, Value], drawn: Mapping[str, Value]) -> str:
    """` at lora.r=2`: the values that an expression reads; empty if it reads none."""
    known = dict(leaves(values)) | values | dict(drawn)
    read = [f"{name}={known[name]!r}" for name in sorted(needs(r) - set(r.when)) if name in known]
    return " at " + ", ".join(read) if read else ""


def _validated(sections: dict[str, Value], mistakes: Mistakes) -> StudyConfig | None:
    """Values without ranges as the config; None if they are wrong."""
    libraries: tuple[Library, ...] = ("lora", "train")
    for key in libraries:
        section = sections.get(key)
        for name, value in section.items() if isinstance(section, dict) else ():
            wrong = value_error(key, name, value)
            if wrong:
                mistakes.setdefault((key, name), f"{key}.{name}={messages.shown(value)} {wrong}")
    try:
        config = StudyConfig.model_validate(sections)
    except ValidationError as error:
        for where, text in messages.mistakes(error, sections):
            mistakes.setdefault(where, text)
        return None
    return None if mistakes else config

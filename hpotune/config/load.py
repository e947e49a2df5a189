"""A study file as a Study, or every mistake in it with its line. Reads, never writes.

A mistake is kept by its place, one a place; so a value that is wrong at ten corners of the space is told once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from hpotune.config import messages, supported_fields
from hpotune.config.comparability import SEARCHABLE, check_place, unmeasured
from hpotune.config.library_fields import Library, value_complaint
from hpotune.config.schema.study_config import PointConfig, StudyConfig
from hpotune.config.space import constraints, start_from
from hpotune.config.space.ranges import (
    CircleError,
    Range,
    Space,
    dotted,
    leaves,
    meant_kind,
    needs,
    ordered,
    parse_range,
    put_point,
    range_kind,
    without,
)
from hpotune.config.unused_keys import unread
from hpotune.config.yaml_source import KeyPath, Source, Value, read_source
from hpotune.errors import StudyFileError, nearest

POINTS_AN_EXPR = 64
"""Combinations of corners at which an expression over several ranges is tried."""

Mistakes = dict[KeyPath, str]
"""The first mistake found at each place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A study file, read and found right."""

    source: Source
    template: dict[str, Value]
    """The file's values, ranges included."""
    space: Space
    config: StudyConfig
    """At the first corner of every range; the sections without ranges are final."""

    def point(self, drawn: Mapping[str, Value]) -> PointConfig:
        """The sections of one trial at a drawn point.

        Raises: ValueError for a point that breaks a rule only there (an expression that leaves its field's type).
        """
        sections = {key: value for key, value in self.template.items() if key in PointConfig.model_fields}
        return PointConfig.model_validate(put_point(sections, self.space, drawn))

    def base(self) -> PointConfig:
        """The sections of the baseline: the first corner, nothing trained."""
        return PointConfig.model_validate(self.config.model_dump(include=set(PointConfig.model_fields)))


def load_study(path: Path) -> Study:
    """Reads, checks and orders one study file.

    Raises: StudyFileError with every mistake found, one line each.
    """
    return build_study(read_source(path))


def build_study(source: Source) -> Study:
    """The Study of values that are already read.

    Raises: StudyFileError with every mistake found, one line each.
    """
    found: Mistakes = {}
    space = _space(source.values, found)
    _unknown_fields(source.values, found)
    config = None
    if space is None:
        _around_ranges(source.values, found)
    else:
        _names(source.values, space, found)
        space = _constrained(source.values, space, found)
        config = _corners(source.values, space, found)
    told = (*unread(config, source.values), *unmeasured(config, source.values)) if config else ()
    for where, text in (*told, *(start_from.mistakes(source.values, space) if space else ())):
        found.setdefault(where, text)
    if found or config is None:
        raise StudyFileError(*lines(source, found))
    return Study(source=source, template=source.values, space=space or Space(ranges=()), config=config)


def lines(source: Source, found: Mistakes) -> list[str]:
    """Mistakes as lines of a message, in the order of the file."""
    placed = [(source.line(where), f"{source.location(where)}: {text}") for where, text in found.items()]
    return [text for _, text in sorted(placed, key=lambda pair: pair[0])]


def _space(values: dict[str, Value], found: Mistakes) -> Space | None:
    """The ranges in their order; None where one of them is wrong."""
    ranges: list[Range] = []
    for where, value in _dicts(values, ()):
        if where[:2] in (("search", "options"), ("search", "start_from")):
            continue
        if range_kind(value) is None:
            meant = meant_kind(value) if len(where) > 1 and where[0] in ("lora", "train", "params") else None
            if meant:
                found[where] = (
                    f"{dotted(where)}: {meant[0]!r} is no kind of range; did you mean {meant[1]!r}?"
                )
            continue
        try:
            check_place(where, values)
            ranges.append(parse_range(value, where))
            if isinstance(where[-1], int) and ranges[-1].when:
                raise ValueError(
                    "when: an item of a list is always there; put the condition on the whole list"
                )
        except ValueError as error:
            found[where] = f"{dotted(where)}: {error}"
    if found:
        return None
    try:
        return ordered(ranges)
    except CircleError as error:
        found[error.where] = f"{dotted(error.where)}: {error}"
        return None


def _dicts(value: Value, where: KeyPath) -> Iterator[tuple[KeyPath, dict[str, Value]]]:
    if isinstance(value, dict):
        yield where, value
    if isinstance(value, (dict, list)) and (range_kind(value) is None or not where):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _dicts(item, (*where, key))


def _unknown_fields(values: dict[str, Value], found: Mistakes) -> None:
    """Keys of lora and train that the libraries do not have or a trial could not honour."""
    for section, check in (
        ("lora", supported_fields.check_lora_key),
        ("train", supported_fields.check_train_key),
    ):
        keys = values.get(section)
        for key in keys if isinstance(keys, dict) and range_kind(keys) is None else ():
            complaint = check(key)
            if complaint:
                found.setdefault((section, key), f"{section}.{key}: {complaint}")


def _around_ranges(values: dict[str, Value], found: Mistakes) -> None:
    """Mistakes beside ranges that are themselves wrong: the rest of the file need not wait for them."""
    places = [where for where, value in _dicts(values, ()) if range_kind(value) and where]

    def touches(where: KeyPath) -> bool:
        return any(where[: len(place)] == place or place[: len(where)] == where for place in places)

    told: Mistakes = {}
    _validated(without(values, places), told)
    for where, text in told.items():
        if not touches(where):
            found.setdefault(where, text)


def _names(values: dict[str, Value], space: Space, found: Mistakes) -> None:
    """Names in `when` and `expr` that stand nowhere, and conditions that can never hold."""
    fixed = {key: value for key, value in values.items() if key in SEARCHABLE}
    fixed_leaves = dict(leaves(without(fixed, [r.where for r in space.ranges])))
    by_name = {r.name: r for r in space.ranges}
    for r in space.ranges:
        for name in sorted(needs(r)):
            part = "when" if name in r.when else "expr"
            if name not in by_name and name not in fixed_leaves:
                known = nearest(name, [*fixed_leaves, *by_name])
                place = (*r.where, part, name)
                found[place] = f"{r.name}: {part} reads {name!r}, which stands nowhere; {known}"
        for name, wanted in r.when.items():
            stands = name in by_name or name in fixed_leaves
            never = _never(wanted, by_name.get(name), fixed_leaves.get(name)) if stands else None
            if never:
                found.setdefault((*r.where, "when", name), f"{r.name}: when: {name} is never {never}")


def _never(wanted: tuple[Value, ...], other: Range | None, fixed: Value) -> str | None:
    """Why a condition cannot hold; None where it can, or where nobody can say (an expression)."""
    asked = " or ".join(map(repr, wanted))
    if other is None:
        return None if fixed in wanted else f"{asked}: it is {fixed!r}"
    if other.kind == "expr":
        return None
    if other.kind == "choice":
        if _met(wanted, other):
            return None
        lists = any(isinstance(option, list) for option in other.options)
        hint = "; a list as one value is written [[…]]" if lists else ""
        return f"{asked}; its choices are {', '.join(map(repr, other.options))}{hint}"
    return None if _met(wanted, other) else f"{asked}: it lies from {other.low:g} to {other.high:g}"


def _met(wanted: tuple[Value, ...], other: Range) -> list[Value]:
    """The values of a condition that a range can take."""
    if other.kind == "choice":
        return [value for value in wanted if value in other.options]
    return [value for value in wanted if isinstance(value, (int, float)) and other.low <= value <= other.high]


def _constrained(values: dict[str, Value], space: Space, found: Mistakes) -> Space:
    """The space with its constraints; where one of them is wrong, without any."""
    wrong = dict(constraints.mistakes(values, space))
    for where, text in wrong.items():
        found.setdefault(where, text)
    return replace(space, constraints=() if wrong else tuple(constraints.texts_of(values).values()))


def _corners(values: dict[str, Value], space: Space, found: Mistakes) -> StudyConfig | None:
    """The study at its first corner; mistakes there and at every other corner of a range are kept.

    Corners that a constraint rules out are no part of the space.
    """
    fixed, every = constraints.fixed_values(values, space), [*_points(space)]
    points = [drawn for drawn in every if not constraints.broken(space, drawn, fixed)] or every
    config = _at(values, space, points[0], found)
    for drawn in points[1:]:
        _at(values, space, drawn, found)
    return config


def _points(space: Space) -> Iterator[dict[str, Value]]:
    """Drawn values: all first corners, then every other corner of each range, then those that expressions combine."""
    first = {r.name: r.corners[0] for r in space.searched}
    yield first
    by_name = {r.name: r for r in space.ranges}
    for r in space.searched:
        reaching = _reaching(r, by_name)
        for corner in r.corners[1:]:
            yield first | reaching | {r.name: corner}
    for r in space.ranges:
        read = sorted(name for name in _sources(r, by_name) if by_name[name].kind != "expr")
        if r.kind == "expr" and len(read) > 1:
            combined = itertools.product(*(by_name[name].corners for name in read))
            for corners in itertools.islice(combined, POINTS_AN_EXPR):
                yield first | _reaching(r, by_name) | dict(zip(read, corners, strict=True))


def _sources(r: Range, by_name: Mapping[str, Range]) -> set[str]:
    """The ranges that an expression reads, directly or through others."""
    direct = {name for name in needs(r) if name in by_name}
    return direct.union(*(_sources(by_name[name], by_name) for name in direct))


def _reaching(r: Range, by_name: Mapping[str, Range]) -> dict[str, Value]:
    """Values of other ranges under which this one is active."""
    drawn: dict[str, Value] = {}
    for name, wanted in r.when.items():
        other = by_name.get(name)
        if other and other.kind != "expr":
            drawn |= _reaching(other, by_name) | {name: next(iter(_met(wanted, other)), other.corners[0])}
    return drawn


def _at(
    values: dict[str, Value], space: Space, drawn: Mapping[str, Value], found: Mistakes
) -> StudyConfig | None:
    """The study at one point; its mistakes are kept, but for those of expressions that read a wrong value."""
    told: Mistakes = {}
    failed: Mistakes = {}
    try:
        sections = put_point(values, space, drawn)
    except ValueError as error:
        r = next(r for r in space.ranges if r.name == str(error).partition(":")[0])
        failed[r.where] = f"{error}{_met_values(r, values, drawn)}"
        sections = put_point(values, Space(ranges=space.searched), drawn)
    config = _validated(sections, told)
    known = dict(leaves(sections))
    tied = {r.where: r for r in space.ranges if r.kind == "expr"}
    wrong = {dotted(where) for where in told.keys() | found.keys()}
    for where, text in (told | failed).items():
        expression = tied.get(where)
        if expression is None:
            found.setdefault(where, text)
        elif not needs(expression) & wrong and not any(place[: len(where)] == where for place in found):
            found.setdefault(where, text + (_origin(expression, known) if where in told else ""))
    return None if failed else config


def _origin(r: Range, known: dict[str, Value]) -> str:
    """Where a wrong value came from, for one that the file does not show."""
    hint = "; // and round() give whole numbers" if isinstance(known.get(r.name), float) else ""
    return f" (expr {r.text!r}{_met_values(r, known, {})}{hint})"


def _met_values(r: Range, values: dict[str, Value], drawn: Mapping[str, Value]) -> str:
    """` at lora.r=2`: the values that an expression met; empty where it reads none."""
    known = dict(leaves(values)) | values | dict(drawn)
    met = [f"{name}={known[name]!r}" for name in sorted(needs(r) - set(r.when)) if name in known]
    return " at " + ", ".join(met) if met else ""


def _validated(sections: dict[str, Value], found: Mistakes) -> StudyConfig | None:
    """Values without ranges as the config; None where they are wrong."""
    libraries: tuple[Library, ...] = ("lora", "train")
    for key in libraries:
        section = sections.get(key)
        for name, value in section.items() if isinstance(section, dict) else ():
            complaint = value_complaint(key, name, value)
            if complaint:
                found.setdefault((key, name), f"{key}.{name}={messages.shown(value)} {complaint}")
    try:
        config = StudyConfig.model_validate(sections)
    except ValidationError as error:
        for where, text in messages.mistakes(error, sections):
            found.setdefault(where, text)
        return None
    return None if found else config

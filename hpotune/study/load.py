"""A study file as a Study, or every mistake in it with its line. Reads the file and looks at what it names; writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hpotune.errors import StudyFileError, nearest
from hpotune.study import fields
from hpotune.study.config import PointConfig, StudyConfig
from hpotune.study.library import Library, field_types, type_complaint
from hpotune.study.source import Source, Value, Where, read_source
from hpotune.study.space import (
    Range,
    Space,
    dotted,
    leaves,
    needs,
    ordered,
    parse_range,
    put_point,
    range_kind,
)

SEARCHABLE = ("model", "data", "lora", "train", "score", "params")


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
    mistakes: list[str] = []
    ranges = list(_find_ranges(source, mistakes))
    if mistakes:
        raise StudyFileError(*mistakes)
    try:
        space = ordered(ranges)
    except ValueError as error:
        raise StudyFileError(f"{source.place(ranges[0].where)}: {error}") from None
    mistakes += [*_unknown_names(source, space), *_field_mistakes(source, space)]
    config = _validate_corners(source, space, mistakes)
    if mistakes or config is None:
        raise StudyFileError(*dict.fromkeys(mistakes))
    return Study(source=source, template=source.values, space=space, config=config)


def _find_ranges(source: Source, mistakes: list[str]) -> Iterable[Range]:
    for where, value in _dicts(source.values, ()):
        if range_kind(value) is None or (where and where[0] == "search"):
            continue
        if not where or where[0] not in SEARCHABLE:
            mistakes.append(
                f"{source.place(where)}: {dotted(where)} holds a range; ranges may stand under {', '.join(SEARCHABLE)}"
            )
            continue
        try:
            yield parse_range(value, where)
        except ValueError as error:
            mistakes.append(f"{source.place(where)}: {dotted(where)}: {error}")


def _dicts(value: Value, where: Where) -> Iterable[tuple[Where, dict[str, Value]]]:
    if isinstance(value, dict):
        yield where, value
    if isinstance(value, (dict, list)) and (range_kind(value) is None or not where):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _dicts(item, (*where, key))


def _unknown_names(source: Source, space: Space) -> Iterable[str]:
    """Names in `when` and `expr` that stand nowhere, and conditions that can never hold."""
    by_name = {r.name: r for r in space.ranges}
    known = {name for name, _ in leaves(_at_corner(source, space))} | by_name.keys()
    for r in space.ranges:
        for name in sorted(needs(r) - known):
            part = "when" if name in r.when else "expr"
            yield f"{source.place(r.where)}: {r.name}.{part} reads {name!r}, which stands nowhere; {nearest(name, known)}"
        for name, wanted in r.when.items():
            other = by_name.get(name)
            if other and other.kind == "choice" and not set(map(str, wanted)) & set(map(str, other.options)):
                yield (
                    f"{source.place(r.where)}: {r.name}.when: {name} is never {' or '.join(map(repr, wanted))}; "
                    f"its choices are {', '.join(map(repr, other.options))}"
                )


def _field_mistakes(source: Source, space: Space) -> Iterable[str]:
    """Keys of lora and train that the libraries do not have or a trial could not honour."""
    for section, check in (("lora", fields.check_lora_key), ("train", fields.check_train_key)):
        keys = source.values.get(section)
        for key in keys if isinstance(keys, dict) else ():
            complaint = check(key)
            if complaint:
                yield f"{source.place((section, key))}: {section}.{key}: {complaint}"


def _at_corner(source: Source, space: Space, **replaced: Value) -> dict[str, Value]:
    """The file's values with every range at its first corner, some replaced by name."""
    first = {r.name: r.corners[0] for r in space.searched}
    try:
        return put_point(source.values, space, first | replaced)
    except ValueError:  # an expression that cannot be computed here is told by _validate_corners
        return put_point(source.values, Space(ranges=space.searched), first | replaced)


def _validate_corners(source: Source, space: Space, mistakes: list[str]) -> StudyConfig | None:
    """Validates the study at its first corner and at every other corner of every single range."""
    config = _validated(source, space, {}, mistakes)
    for r in space.searched:
        if mistakes:
            break
        for corner in r.corners[1:]:
            _validated(source, space, _reaching(r, space) | {r.name: corner}, mistakes)
    return config


def _reaching(r: Range, space: Space) -> dict[str, Value]:
    """Values of other ranges under which this one is active."""
    by_name = {other.name: other for other in space.searched}
    return {
        name: next((v for v in wanted if v in by_name[name].corners), by_name[name].corners[0])
        for name, wanted in r.when.items()
        if name in by_name
    }


def _validated(
    source: Source, space: Space, drawn: Mapping[str, Value], mistakes: list[str]
) -> StudyConfig | None:
    values = {r.name: r.corners[0] for r in space.searched} | dict(drawn)
    try:
        sections = put_point(source.values, space, values)
    except ValueError as error:
        name = str(error).partition(":")[0]
        where = next(r.where for r in space.ranges if r.name == name)
        mistakes.append(f"{source.place(where)}: {error}")
        return None
    mistakes += _type_mistakes(source, sections)
    try:
        return StudyConfig.model_validate(sections)
    except ValidationError as error:
        mistakes += [_line(source, details) for details in error.errors()]
        return None


def _type_mistakes(source: Source, sections: Mapping[str, Value]) -> Iterable[str]:
    """Values of lora and train that their library field could not take."""
    libraries: tuple[Library, ...] = ("lora", "train")
    for key in libraries:
        section, types = sections.get(key), field_types(key)
        for name, value in section.items() if isinstance(section, dict) else ():
            complaint = type_complaint(value, types[name]) if name in types else None
            if complaint:
                yield f"{source.place((key, name))}: {key}.{name}={value!r} {complaint}"


def _line(source: Source, details: ErrorDetails) -> str:
    """One pydantic error as value, rule, place and next step."""
    where = tuple(
        key
        for key in details["loc"]
        if not str(key).startswith(("function-", "literal[", "list[", "constrained-"))
    )
    where = _without_branch(where)
    name, kind = dotted(where), details["type"]
    if kind == "extra_forbidden":
        return f"{source.place(where)}: {name}: unknown key; {nearest(str(where[-1]), _siblings(where))}"
    if kind == "missing":
        return f"{source.place(where)}: {name} is missing; add it ({_meaning(where)})"
    rule = (
        details["msg"].removeprefix("Value error, ").replace("Input should be", "needs").replace("valid ", "")
    )
    rule = rule.replace(
        "String should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'",
        "needs letters, digits, . _ - (at most 64)",
    )
    if not where or isinstance(details["input"], dict):
        return f"{source.place(where)}: {name + ': ' if name else ''}{rule}"
    return f"{source.place(where)}: {name}={details['input']!r} {rule}"


def _without_branch(where: Where) -> Where:
    """Drops the tags pydantic puts behind a place for the branches of a union (`until.date`)."""
    model: type[BaseModel] | None = StudyConfig
    for depth, key in enumerate(where):
        if model is None or isinstance(key, int):
            continue
        if key not in model.model_fields:
            return where[:depth] if depth and _section(where[:depth]) is None else where
        model = _section(where[: depth + 1])
    return where


def _section(where: Where) -> type[BaseModel] | None:
    """The section class at a place, None for a plain value."""
    model: type[BaseModel] = StudyConfig
    for key in where:
        if isinstance(key, int):
            continue
        field = model.model_fields.get(str(key))
        inner = [c for c in _classes(field.annotation if field else None)]
        if not inner:
            return None
        model = inner[0]
    return model


def _classes(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [c for arg in getattr(annotation, "__args__", ()) for c in _classes(arg)]


def _siblings(where: Where) -> Iterable[str]:
    section = _section(where[:-1])
    return section.model_fields.keys() if section else ()


def _meaning(where: Where) -> str:
    section = _section(where[:-1])
    field = section.model_fields.get(str(where[-1])) if section else None
    text = (field.description if field else None) or (section.__doc__ if section else "") or ""
    return text.split("\n")[0].rstrip(".")

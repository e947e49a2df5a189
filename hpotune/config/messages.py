"""Error messages of a study file, made from pydantic's errors: key path in the file, value, rule and next step."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hpotune.config.schema import field_text
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.space.ranges import dotted
from hpotune.config.text.secret_text import is_secret_name
from hpotune.config.yaml_source import KeyPath, Value
from hpotune.errors import nearest

_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
    "date_type": "a date such as 2026-12-24 or 2026-12-24 18:00",
    "datetime_type": "a date such as 2026-12-24 or 2026-12-24 18:00",
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "too_short": "at least {min_length}",
    "literal_error": "{expected}",
}
_BRANCH = ("function-", "literal[", "list[", "dict[", "constrained-")
_PASSWORD = re.compile(r"(://[^/@:\s]*:)[^/@\s]*@|(password=)[^&\s]*")
SHOWN = 80
"""Characters of a value in a message."""


def mistakes(error: ValidationError, sections: dict[str, Value]) -> Iterator[tuple[KeyPath, str]]:
    """Key path and text of each error; the branches of a union (`gpus` is a number or text) give one error."""
    by_key: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors():
        where = _in_file(
            _without_branch(tuple(k for k in details["loc"] if not str(k).startswith(_BRANCH))), sections
        )
        by_key.setdefault(where, []).append(details)
    for where, group in by_key.items():
        key, text = _mistake(where, group)
        yield key, text + (_quote_hint(where, sections) if group[0]["type"] == "extra_forbidden" else "")


def shown(value: object) -> str:
    """A value as a message shows it: null, true and false as in YAML, passwords masked, at most SHOWN characters."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    text = _PASSWORD.sub(lambda match: f"{match[1] or match[2]}***{'@' if match[1] else ''}", repr(value))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _mistake(where: KeyPath, group: list[ErrorDetails]) -> tuple[KeyPath, str]:
    kind, value, name = group[0]["type"], group[0]["input"], dotted(where)
    if kind == "extra_forbidden":
        return where, f"{name}: unknown key; {nearest(str(where[-1]), _siblings(where))}"
    if kind == "missing":
        return where, f"{name} is missing; add it ({_meaning(where)})"
    if kind == "value_error":
        return _own_rule(where, group[0]["msg"].removeprefix("Value error, "), value)
    rule = f"needs {' or '.join(dict.fromkeys(_rule(details) for details in group))}"
    if value is None and kind in ("dict_type", "model_type", "model_attributes_type"):
        return where, f"{name} is empty; {rule}, or remove the line"
    if where and is_secret_name(str(where[-1])):
        return where, f"{name} {rule}"
    return where, f"{name}={shown(value)} {rule}{_hint(group, value)}"


def _quote_hint(where: KeyPath, sections: dict[str, Value]) -> str:
    """What to write where a comma has split a plain value: YAML reads `{metric: a,b}` as the keys `metric` and `b`."""
    section: Value = sections
    for key in where[:-1]:
        if isinstance(section, dict):
            section = section.get(str(key))
        elif isinstance(section, list) and isinstance(key, int):
            section = section[key]
    if not isinstance(section, dict) or section.get(str(where[-1]), "") is not None:
        return ""
    keys = list(section)
    before = keys.index(str(where[-1])) - 1
    value = section[keys[before]] if before >= 0 else None
    if not isinstance(value, str):
        return ""
    return f'; if it belongs to the value before, quote that: {keys[before]}: "{value},{where[-1]}"'


def _own_rule(where: KeyPath, text: str, value: Any) -> tuple[KeyPath, str]:  # noqa: ANN401 - whatever the file holds
    """An error raised by a validator of the schema. If it starts with `KEY: `, it belongs to KEY of that section."""
    if not isinstance(value, dict):
        return where, f"{dotted(where)}={shown(value)} {text}"
    key, separator, rest = text.partition(": ")
    while separator and isinstance(value, dict) and key in value:
        where, text, value = (*where, key), rest, value[key]
        key, separator, rest = text.partition(": ")
    return where, f"{dotted(where)}: {text}" if where else text


def _rule(details: ErrorDetails) -> str:
    fallback = details["msg"].replace("Input should be ", "").replace("valid ", "")
    return _TYPES.get(details["type"], fallback).format(**details.get("ctx", {}))


def _hint(group: list[ErrorDetails], value: object) -> str:
    """The next step, if the value suggests one."""
    kinds = {details["type"] for details in group}
    if "string_type" in kinds and isinstance(value, (bool, int, float)):
        return f"; put it in quotes: {str(value)!r}"
    if "literal_error" in kinds and isinstance(value, str):
        expected = re.findall(r"'([^']*)'", " ".join(str(d.get("ctx", {}).get("expected")) for d in group))
        return nearest(value, expected).partition("valid:")[0].replace("did you", "; did you").rstrip()
    return ""


def _in_file(where: KeyPath, sections: dict[str, Value]) -> KeyPath:
    """The key path in the file, where a single objective may be written without a list."""
    score = sections.get("score")
    single = isinstance(score, dict) and not isinstance(score.get("objective"), list)
    if single and where[:3] == ("score", "objective", 0):
        return (*where[:2], *where[3:])
    return where


def _without_branch(where: KeyPath) -> KeyPath:
    """The key path without the tags that pydantic appends for the branches of a union (`until.date`)."""
    model: type[BaseModel] | None = StudyConfig
    for depth, key in enumerate(where):
        if model is None or isinstance(key, int):
            continue
        if key not in model.model_fields:
            return where[:depth] if depth and _section(where[:depth]) is None else where
        inner = _section(where[: depth + 1])
        if inner is None and not _holds_mapping(model, key):
            return where[: depth + 1]
        model = inner
    return where


def _holds_mapping(model: type[BaseModel], key: str) -> bool:
    return "dict" in str(model.model_fields[key].annotation) or "list" in str(
        model.model_fields[key].annotation
    )


def _section(where: KeyPath) -> type[BaseModel] | None:
    """The section class at a key path; None for a plain value."""
    model: type[BaseModel] = StudyConfig
    is_name = False  # of a section that the user names, such as a source of a mixture
    for key in where:
        if isinstance(key, int) or is_name:
            is_name = False
            continue
        field = model.model_fields.get(str(key))
        inner = _classes(field.annotation if field else None)
        if not inner:
            return None
        model, is_name = inner[0], get_origin(field.annotation if field else None) is dict
    return model


def _classes(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [c for arg in getattr(annotation, "__args__", ()) for c in _classes(arg)]


def _siblings(where: KeyPath) -> Iterable[str]:
    section = _section(where[:-1])
    return section.model_fields.keys() if section else ()


def _meaning(where: KeyPath) -> str:
    section = _section(where[:-1])
    if section is None:
        return ""
    text = field_text(section, str(where[-1])) or section.__doc__ or ""
    return " ".join(text.split()).partition(". ")[0].rstrip(".")  # the first sentence

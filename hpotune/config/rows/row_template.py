"""Templates of prompts and answers: text with {columns}, and the fields of a row that they name.

A placeholder is anything in braces: {output}, {Queue Name}, {a.b} for the field b of the column a. Only these are
literal text, which JSON needs: braces around other braces, empty braces, and braces whose content starts with a quote
or a line break: {"queue": "{output}"}. `{'{'}` and `{'}'}`, as in Python's f-strings, are one literal brace.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from hpotune.config.yaml_source import Value

_PART = re.compile(r"""\{(?P<quote>['"])(?P<brace>[{}])(?P=quote)\}|\{(?P<name>[^{}]*)\}""")
_LITERAL = re.compile(r"""\s*$|\s*["']|[ \t]*\r?\n""")
_FILLED = "\0"  # stands for a placeholder where braces are counted
_ESCAPED = "\1"  # stands for an escaped brace
_OPENED = re.compile(rf"\{{[ \t]*[\w{_FILLED}]")
_CLOSED = re.compile(rf"[\w{_FILLED}][ \t]*$")


class Part(NamedTuple):
    """A part of a template."""

    text: str
    """The literal text, or the name in the braces."""
    is_column: bool
    """Whether it is a placeholder."""


class NoSuchField(ValueError):
    """A row has no such field, because a value on the way to it is not an object: `column 'a' is text, …`."""


class NotText(ValueError):
    """A value that is neither text nor JSON."""


class UnreadableValue(NamedTuple):
    """A value that its file holds and Python cannot."""

    reason: str
    """What it is, and what to do."""


@lru_cache(maxsize=64)
def template_parts(template: str) -> tuple[Part, ...]:
    """The literal texts and the placeholders of a template, in their order."""
    parts, end = list[Part](), 0
    for match in _PART.finditer(template):
        brace, name = match["brace"], match["name"]
        if brace is None and _LITERAL.match(name):
            continue
        parts.append(Part(template[end : match.start()], is_column=False))
        parts.append(Part(brace, is_column=False) if brace else Part(name, is_column=True))
        end = match.end()
    return (*parts, Part(template[end:], is_column=False))


def placeholders(template: str) -> list[str]:
    """The names of the columns and fields in a template."""
    return [part.text for part in template_parts(template) if part.is_column]


def template_mistake(template: str) -> str | None:
    """What is wrong with a template, whatever the columns are; None if nothing is."""
    parts = template_parts(template)
    for index, part in enumerate(parts):
        if not part.is_column:
            continue
        before, after = parts[index - 1].text, parts[index + 1].text
        if before.endswith("{") and after.startswith("}"):
            name = part.text.strip()
            return (
                f"{{{{{part.text}}}}} has double braces; write {{{name}}} for the column "
                f"(with braces around its value: {{'{{'}}{{{name}}}{{'}}'}})"
            )
    return _brace_mistake(template)


def _brace_mistake(template: str) -> str | None:
    """A brace without its other half at a name or a placeholder; elsewhere, as in half of a JSON, it is literal."""
    text, opened = _PART.sub(_masked, template), list[int]()
    for index, sign in enumerate(text):
        if sign == "{":
            opened.append(index)
        elif sign == "}" and opened:
            opened.pop()
        elif sign == "}" and _CLOSED.search(text[:index]):
            return (
                f"{template[max(0, index - 39) : index + 1]} closes a brace that nothing opens; write {{ before the "
                "name of the column, or {'}'} for a literal brace"
            )
    lone = next((index for index in opened if _OPENED.match(text, index)), None)
    if lone is None:
        return None
    return (
        f"{template[lone : lone + 40]} opens a brace that nothing closes; write }} behind the name of the column, "
        "or {'{'} for a literal brace"
    )


def _masked(match: re.Match[str]) -> str:
    """Placeholders and escapes without their braces, at their length; literal braces as they are."""
    if match["brace"]:
        return _ESCAPED * len(match[0])
    return match[0] if _LITERAL.match(match["name"]) else _FILLED * len(match[0])


def has_field(row: Mapping[str, Value], name: str) -> bool:
    """Whether a row has the column, or the field of a column, that a placeholder names."""
    if name in row:
        return True
    return any(has_field(inner, rest) for inner, rest in _objects(row, name))


def field_value(row: Mapping[str, Value], name: str) -> Value:
    """The value that a placeholder names; None if it is missing. A column whose own name holds dots wins.

    Raises: NoSuchField for a field of a value that is not an object.
    """
    if name in row:
        return row[name]
    for inner, rest in _objects(row, name):
        if has_field(inner, rest):
            return field_value(inner, rest)
    for column, rest in _splits(name):
        value = row.get(column)
        if value is not None and not isinstance(value, dict):
            raise NoSuchField(f"column {column!r} is {kind_of(value)}, which has no field {rest!r}")
    return None


def field_names(rows: Iterable[Mapping[str, Value]]) -> list[str]:
    """The columns of the rows and the fields of their objects, as placeholders name them."""
    names: dict[str, None] = {}
    for row in rows:
        for column, value in row.items():
            names[column] = None
            if isinstance(value, dict):
                names.update(dict.fromkeys(f"{column}.{inner}" for inner in field_names([value])))
    return list(names)


def value_text(value: Value) -> str:
    """A value as it is trained: text letter by letter, nothing for a missing value, anything else as JSON.

    Numbers have the digits of Python's json: the shortest that give the same number (1e+17, 3.0, 1.5).

    Raises: NotText for bytes, durations, infinite numbers and unreadable values.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, UnreadableValue):
        raise NotText(f"holds {value.reason}")
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except TypeError as error:  # Object of type bytes is not JSON serializable
        kind = str(error).removeprefix("Object of type ").partition(" ")[0]
        raise NotText(f"holds {kind}, which is neither text nor JSON") from None
    except ValueError:
        raise NotText("holds an infinite number, which JSON does not know") from None


def kind_of(value: object) -> str:
    """What a value is, in words."""
    if isinstance(value, UnreadableValue):
        return value.reason
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return kinds.get(type(value), "an object" if isinstance(value, dict) else type(value).__name__)


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """`a.b.c` as (a.b, c) and (a, b.c)."""
    dots = [index for index, sign in enumerate(name) if sign == "."]
    return ((name[:dot], name[dot + 1 :]) for dot in reversed(dots))


def _objects(row: Mapping[str, Value], name: str) -> Iterator[tuple[dict[str, Value], str]]:
    """The objects in a row that can hold the rest of a name."""
    for column, rest in _splits(name):
        inner = row.get(column)
        if isinstance(inner, dict):
            yield inner, rest

"""A YAML file as plain values, each with the line it stands on.

YAML 1.1, which PyYAML speaks, reads `1e-5` as text, `no` as false, `12:30:00` as 45000 and keeps the
last of two equal keys without a word. Here the core schema of YAML 1.2 decides (`1e-5` is a number,
only true and false are booleans, times and dates stay text) and a duplicate key is an error.
Source: https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import yaml

from hpotune.errors import StudyFileError

Value = Union[None, bool, int, float, str, "list[Value]", "dict[str, Value]"]
KeyPath = tuple[str | int, ...]

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_HEX_OCT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_MERGE = "tag:yaml.org,2002:merge"
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The values of one file and the line (1-based) of each key and list item."""

    path: Path
    values: dict[str, Value]
    lines: Mapping[KeyPath, int]

    def line(self, where: KeyPath) -> int:
        """The line of the value, or of the nearest thing around it that stands in the file."""
        near = (where[:end] for end in range(len(where), 0, -1))
        return next((self.lines[place] for place in near if place in self.lines), 1)

    def location(self, where: KeyPath) -> str:
        """`file:line` of the same."""
        return f"{self.path.name}:{self.line(where)}"


def read_source(path: Path) -> Source:
    """Reads one YAML file.

    Raises: StudyFileError when it cannot be read, is not YAML, holds no mapping, or repeats a key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyFileError(f"{path}: no such file; `hpotune init` lists templates to start from") from None
    except UnicodeDecodeError:
        raise StudyFileError(f"{path}: is not text in UTF-8; needs a YAML file") from None
    except OSError as error:
        raise StudyFileError(
            f"{path}: cannot be read ({error.strerror}); needs a file you may read"
        ) from None
    return parse_source(text, path=path)


def parse_source(text: str, *, path: Path) -> Source:
    """The same for text that is already in hand; `path` only names it in messages."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise StudyFileError(f"{path.name}{line}: {_not_yaml(error)}") from None
    except yaml.reader.ReaderError as error:
        line = f":{text.count(chr(10), 0, error.position) + 1}"
        raise StudyFileError(
            f"{path.name}{line}: holds a character that is no text ({error.character!r}); needs a YAML file"
        ) from None
    if not isinstance(root, yaml.MappingNode):
        raise StudyFileError(f"{path.name}:1: holds no `key: value` lines; `hpotune init` shows a study file")
    reader = _Reader(path)
    values = reader.value(root, ())
    if reader.mistakes:
        raise StudyFileError(*reader.mistakes)
    assert isinstance(values, dict), "a mapping node gives a dict"
    return Source(path=path, values=values, lines=reader.lines)


def _not_yaml(error: yaml.MarkedYAMLError) -> str:
    """What PyYAML found, and what to do about it."""
    problem = error.problem or error.context or "unreadable"
    if "\\t" in problem:
        return "a tab stands at the start of a value or line; YAML needs spaces"
    if "another document" in problem:
        return "a second document starts here (---); a study file holds one"
    return f"not YAML: {problem}; check indentation, brackets and quotes"


class _Reader:
    """Walks the node tree once: values out, lines and mistakes kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[KeyPath, int] = {}
        self.mistakes: list[str] = []
        self._open: list[yaml.Node] = []
        """The nodes around the one being read: an alias to one of them would never end."""

    def value(self, node: yaml.Node, where: KeyPath) -> Value:
        if node in self._open:
            self._mistake(
                node, f"{_name(where)} holds itself (*alias of its own &anchor); write its values out"
            )
            return None
        if node.tag.startswith("!") or "python/" in node.tag:
            self._mistake(node, f"{_name(where)} has the tag {node.tag}; a study file holds plain values")
        self._open.append(node)
        value = self._inner(node, where)
        self._open.pop()
        return value

    def _inner(self, node: yaml.Node, where: KeyPath) -> Value:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            items: list[Value] = []
            for index, item in enumerate(node.value):
                place = (*where, index)
                self.lines[place] = item.start_mark.line + 1
                items.append(self.value(item, place))
            return items
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, where: KeyPath) -> dict[str, Value]:
        merged = self._merged(node, where)  # first, so that the lines of the mapping's own keys stand
        found: dict[str, Value] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._mistake(key_node, f"a key of {_name(where)} is a list or mapping; needs a word")
                continue
            key = str(key_node.value)
            place = (*where, key)
            if key in found:
                first, name = self.lines[place], _name(place)
                rule = f"stands twice (first on line {first}); a key may stand once: remove one"
                self._mistake(key_node, f"{name} {rule}")
            self.lines[place] = line
            found[key] = self.value(value_node, place)
        return merged | found

    def _merged(self, node: yaml.MappingNode, where: KeyPath) -> dict[str, Value]:
        """What `<<: *anchor` or `<<: [*one, *two]` brings; of a list the first wins, as YAML says."""
        merged: dict[str, Value] = {}
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE:
                continue
            bases = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for base_node in reversed(bases):
                base = self.value(base_node, where)
                if not isinstance(base, dict):
                    self._mistake(key_node, f"<< in {_name(where)} needs a mapping, such as *anchor")
                    continue
                merged |= base
        return merged

    def _scalar(self, node: yaml.Node) -> Value:
        quoted = getattr(node, "style", None) in ("'", '"', "|", ">")
        return str(node.value) if quoted else plain(str(node.value))

    def _mistake(self, node: yaml.Node, rule: str) -> None:
        self.mistakes.append(f"{self.path.name}:{node.start_mark.line + 1}: {rule}")


def _name(where: KeyPath) -> str:
    return ".".join(map(str, where)) or "the file"


def plain(text: str) -> Value:
    """An unquoted scalar by the core schema of YAML 1.2."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _HEX_OCT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if text.lower() in _SPECIAL:
        return float(_SPECIAL[text.lower()])
    return text


class _Dumper(yaml.SafeDumper):
    """Writes what `plain` reads back: numbers that PyYAML would write as text keep their dot."""


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    text = repr(value)
    if text in ("inf", "-inf", "nan"):
        text = text.replace("inf", ".inf").replace("nan", ".nan")
    if "." not in text and "n" not in text:
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    quotes = None if plain(value) == value else "'"  # PyYAML leaves 1e-5 bare: to it that is text
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=quotes)


_Dumper.add_representer(float, _float)
_Dumper.add_representer(str, _text)


def write_yaml(values: Mapping[str, Value]) -> str:
    """YAML text that `parse_source` reads back to equal values, keys in the order given."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)

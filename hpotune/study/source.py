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
Where = tuple[Union[str, int], ...]

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_HEX_OCT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The values of one file and the line (1-based) of each key and list item."""

    path: Path
    values: dict[str, Value]
    lines: Mapping[Where, int]

    def place(self, where: Where) -> str:
        """`file:line` of the value, or of the nearest thing around it that stands in the file."""
        for end in range(len(where), 0, -1):
            if where[:end] in self.lines:
                return f"{self.path.name}:{self.lines[where[:end]]}"
        return f"{self.path.name}:1"


def read_source(path: Path) -> Source:
    """Reads one YAML file.

    Raises: StudyFileError when it cannot be read, is not YAML, holds no mapping, or repeats a key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyFileError(f"{path}: no such file; `hpotune init` lists templates to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyFileError(f"{path}: cannot be read ({error}); needs a text file you may read") from None
    return parse_source(text, path=path)


def parse_source(text: str, *, path: Path) -> Source:
    """The same for text that is already in hand; `path` only names it in messages."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise StudyFileError(
            f"{path.name}{line}: not YAML: {error.problem}; check indentation and quotes"
        ) from None
    except yaml.YAMLError as error:
        raise StudyFileError(f"{path.name}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(root, yaml.MappingNode):
        raise StudyFileError(f"{path.name}:1: holds no `key: value` lines; `hpotune init` shows a study file")
    reader = _Reader(path)
    values = reader.value(root, ())
    if reader.mistakes:
        raise StudyFileError(*reader.mistakes)
    assert isinstance(values, dict), "a mapping node gives a dict"
    return Source(path=path, values=values, lines=reader.lines)


class _Reader:
    """Walks the node tree once: values out, lines and mistakes kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Where, int] = {}
        self.mistakes: list[str] = []

    def value(self, node: yaml.Node, where: Where) -> Value:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            items: list[Value] = []
            for index, item in enumerate(node.value):
                self.lines[(*where, index)] = item.start_mark.line + 1
                items.append(self.value(item, (*where, index)))
            return items
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Value]:
        found: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = str(key_node.value)
            if key_node.tag == "tag:yaml.org,2002:merge":
                base = self.value(value_node, where)
                merged |= base if isinstance(base, dict) else {}
                continue
            if key in found:
                first = self.lines[(*where, key)]
                self.mistakes.append(
                    f"{self.path.name}:{line}: {'.'.join(map(str, (*where, key)))} stands twice (first on line "
                    f"{first}); a key may stand once: remove one"
                )
            self.lines[(*where, key)] = line
            found[key] = self.value(value_node, (*where, key))
        return merged | found

    def _scalar(self, node: yaml.Node) -> Value:
        quoted = getattr(node, "style", None) in ("'", '"', "|", ">")
        return str(node.value) if quoted else plain(str(node.value))


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


_Dumper.add_representer(float, _float)


def write_yaml(values: Mapping[str, Value]) -> str:
    """YAML text that `parse_source` reads back to equal values, keys in the order given."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)

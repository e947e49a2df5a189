"""A YAML file as plain values, each with its line. Reads and writes YAML; knows nothing of studies.

YAML 1.1, which PyYAML implements, reads `1e-5` as text, `no` as false, `12:30:00` as 45000, and silently keeps the
last of two equal keys. This module uses the core schema of YAML 1.2 (`1e-5` is a number, only true and false are
booleans, times and dates stay text), and a duplicate key is an error. What could take for ever or cannot be stored is
an error too: sizes, nesting, aliases that multiply, numbers beyond double precision, control characters.
Source: https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import yaml

from hpotune.config.text.outside_text import console_text, has_hidden
from hpotune.config.text.secret_text import masked
from hpotune.config.text_files import code_point, read_file, wrong_character
from hpotune.errors import StudyFileError

Value = Union[None, bool, int, float, str, "list[Value]", "dict[str, Value]"]
KeyPath = tuple[str | int, ...]
"""The path of a value in the file: ("search", "options", "eta"), ("score", "objective", 0, "metric")."""
Mistake = tuple[KeyPath, str]
"""One error of a file: the path of its key, and the message without the location."""
Mistakes = dict[KeyPath, str]
"""The first error of each key."""

LARGEST = 2**20
"""Bytes of a study file, and characters of its values with every alias written out."""
LARGEST_WRITTEN = 16 * 2**20
"""Bytes of a resolved.yaml, which is indented and has every alias written out."""
MOST_CHARACTERS = 2 * LARGEST
MOST_VALUES = 20_000
"""Values and keys of a file, with every alias written out. Reading them takes a third of a second."""
MOST_WRITTEN = 2 * MOST_VALUES
"""Values and keys of a resolved.yaml, which has those of the study file, and defaults."""
DEEPEST = 50
"""Mappings and lists inside of each other."""
LONGEST_KEY = 200
MOST_MESSAGES = 100
"""Errors that are reported of a file."""
LONGEST_MESSAGE = 2_000

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_HEX_OCT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LONG = 250
"""Characters of a whole number that can be beyond double precision; Python refuses to read more than 4300 digits."""
_MERGE = "tag:yaml.org,2002:merge"
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The values of one file, and the line (from 1) of each key and list item."""

    path: Path
    values: dict[str, Value]
    lines: Mapping[KeyPath, int]
    text: str = ""
    """The file's content; empty for values that were in no file."""

    def line(self, key: KeyPath) -> int:
        """The line of a value, or of the nearest value around it that is in the file."""
        around = (key[:end] for end in range(len(key), 0, -1))
        return next((self.lines[outer] for outer in around if outer in self.lines), 1)

    def location(self, key: KeyPath) -> str:
        """`file:line` of a value."""
        return f"{self.path.name}:{self.line(key)}"

    def messages(self, mistakes: Mistakes) -> list[str]:
        """One line for each error, `file:line: text`, in the order of the file."""
        by_line = [(self.line(key), f"{self.location(key)}: {text}") for key, text in mistakes.items()]
        return bounded([text for _, text in sorted(by_line, key=lambda pair: pair[0])])


def bounded(messages: list[str]) -> list[str]:
    """Messages as they are printed: one line each, without secrets and no longer than needed, and not too many."""
    shown = [_one_line(masked(message)) for message in messages[:MOST_MESSAGES]]
    left = len(messages) - len(shown)
    return [*shown, f"and {left} more; correct these first"] if left else shown


def _one_line(message: str) -> str:
    """The message with escapes for what a terminal would act on, cut in the middle if it is too long."""
    if len(message) > LONGEST_MESSAGE:
        half = LONGEST_MESSAGE // 2
        message = f"{message[:half]} … {message[-half:]}"
    return console_text(message, one_line=True)


def read_source(path: Path) -> Source:
    """The values and lines of one YAML file.

    Raises: StudyFileError if it cannot be read, is not YAML, is not a mapping, or repeats a key.
    """
    try:
        largest = LARGEST_WRITTEN if path.name == "resolved.yaml" else LARGEST
        text = read_file(path, largest=largest).decode()
    except FileNotFoundError:
        raise StudyFileError(f"{path}: no such file; `hpotune init` lists templates to start from") from None
    except UnicodeDecodeError:
        raise StudyFileError(f"{path}: is not UTF-8 text; needs a YAML file") from None
    except OSError as error:
        raise StudyFileError(
            f"{path}: cannot be read ({error.strerror}); needs a file that you can read"
        ) from None
    return parse_source(text, path=path)


def parse_source(text: str, *, path: Path) -> Source:
    """The values and lines of a text; `path` only names it in messages.

    Raises: StudyFileError if it is not YAML, is not a mapping, repeats a key, or breaks a limit.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    try:
        most = MOST_WRITTEN if path.name == "resolved.yaml" else MOST_VALUES
        root = _Loader(text, most=most).get_single_node()
    except _LimitError as error:
        raise StudyFileError(f"{path.name}:{error.line}: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise StudyFileError(f"{path.name}{line}: {_not_yaml(error)}") from None
    except yaml.reader.ReaderError as error:
        line = f":{text.count(chr(10), 0, error.position) + 1}"
        raise StudyFileError(
            f"{path.name}{line}: contains a control character ({error.character!r}); needs a YAML text file"
        ) from None
    if not isinstance(root, yaml.MappingNode):
        raise StudyFileError(f"{path.name}:1: has no `key: value` lines; `hpotune init` writes an example")
    reader = _Reader(path, most=most)
    try:
        values = reader.value(root, ())
    except _LimitError as error:
        raise StudyFileError(f"{path.name}:{error.line}: {error}") from None
    if reader.mistakes:
        raise StudyFileError(*bounded(reader.mistakes))
    assert isinstance(values, dict), "a mapping node gives a dict"
    return Source(path=path, values=values, lines=reader.lines, text=text)


def _not_yaml(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's error, and the next step."""
    problem = error.problem or error.context or "unreadable"
    if "\\t" in problem:
        return "a tab is used for indentation; YAML needs spaces"
    if "another document" in problem:
        return "a second document starts here (---); a study file contains one"
    return f"not YAML: {problem}; check indentation, brackets and quotes"


class _LimitError(Exception):
    """A limit that a file breaks; what lies behind it is not read."""

    def __init__(self, rule: str, *, line: int) -> None:
        super().__init__(rule)
        self.line = line


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, which stops where the file has too many values or too many levels of them."""

    def __init__(self, text: str, *, most: int) -> None:
        super().__init__(text)
        self._depth = self._count = 0
        self._most = most

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node; called by PyYAML for each value and key."""
        self._count += 1
        self._depth += 1
        rule = _TOO_DEEP if self._depth > DEEPEST + 1 else _TOO_MANY if self._count > self._most else ""
        if rule:
            raise _LimitError(rule, line=self.line + 1)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_TOO_DEEP = f"more than {DEEPEST} levels of mappings and lists; write it flatter"
_TOO_MANY = f"more than {MOST_VALUES:,} values and keys; put data into a file of its own"
_ALIASES = "with its *aliases written out"


class _Reader:
    """Reads the tree of YAML nodes once; collects lines and errors."""

    def __init__(self, path: Path, *, most: int) -> None:
        self.path = path
        self.most = most
        """Values and keys with every alias written out."""
        self.lines: dict[KeyPath, int] = {}
        self.mistakes: list[str] = []
        self._open: list[yaml.Node] = []
        """The nodes around the current one: an alias to one of them would recurse without end."""
        self._count = self._characters = 0

    def value(self, node: yaml.Node, key: KeyPath) -> Value:
        self._count += 1
        line = node.start_mark.line + 1
        if self._count > self.most:
            raise _LimitError(f"{_name(key)}: {_ALIASES} the file has {_TOO_MANY}", line=line)
        if len(self._open) > DEEPEST:
            raise _LimitError(f"{_name(key)}: {_ALIASES} the file has {_TOO_DEEP}", line=line)
        if node in self._open:
            self._mistake(
                node, f"{_name(key)} contains itself (*alias of its own &anchor); write its values out"
            )
            return None
        if node.tag.startswith("!") or "python/" in node.tag:
            self._mistake(
                node, f"{_name(key)} has the tag {node.tag}; a study file contains plain values only"
            )
        self._open.append(node)
        value = self._inner(node, key)
        self._open.pop()
        return value

    def _inner(self, node: yaml.Node, key: KeyPath) -> Value:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            items: list[Value] = []
            for index, item in enumerate(node.value):
                item_key = (*key, index)
                self.lines[item_key] = item.start_mark.line + 1
                items.append(self.value(item, item_key))
            return items
        return self._scalar(node, key)

    def _mapping(self, node: yaml.MappingNode, at: KeyPath) -> dict[str, Value]:
        merged = self._merged(node, at)  # first, so that the mapping's own keys overwrite its lines
        found: dict[str, Value] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            self._count += 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._mistake(key_node, f"a key of {_name(at)} is a list or mapping; needs text")
                continue
            name = str(key_node.value)
            key = (*at, name)
            self._check_key(key_node, key)
            if name in found:
                rule = f"is given twice (first on line {self.lines[key]}); remove one of them"
                self._mistake(key_node, f"{_name(key)} {rule}")
            self.lines[key] = key_node.start_mark.line + 1
            found[name] = self.value(value_node, key)
        return merged | found

    def _merged(self, node: yaml.MappingNode, key: KeyPath) -> dict[str, Value]:
        """The keys that `<<: *anchor` or `<<: [*one, *two]` merges; in a list, the first wins, as in YAML."""
        merged: dict[str, Value] = {}
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE:
                continue
            bases = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for base_node in reversed(bases):
                base = self.value(base_node, key)
                if not isinstance(base, dict):
                    self._mistake(key_node, f"<< in {_name(key)} needs a mapping, such as *anchor")
                    continue
                merged |= base
        return merged

    def _check_key(self, node: yaml.Node, key: KeyPath) -> None:
        name = str(key[-1])
        odd = next((character for character in name if not character.isprintable()), None)
        around = _name(key[:-1])
        if odd is not None:
            self._mistake(
                node, f"a key of {around} has the character {code_point(odd)}, which cannot be printed"
            )
        if len(name) > LONGEST_KEY:
            self._mistake(node, f"a key of {around} has {len(name)} characters; needs at most {LONGEST_KEY}")

    def _scalar(self, node: yaml.Node, key: KeyPath) -> Value:
        text = str(node.value)
        self._characters += len(text)
        if self._characters > MOST_CHARACTERS:
            raise _LimitError(
                f"{_name(key)}: {_ALIASES} the file is too large; put data into a file of its own",
                line=node.start_mark.line + 1,
            )
        wrong = wrong_character(text, any_direction=key[:2] in _ANY_DIRECTION or key[:1] in _ANY_DIRECTION)
        if wrong is not None:
            self._mistake(node, f"{_name(key)} contains {wrong}, which a study file cannot have; remove it")
            return None
        if getattr(node, "style", None) in ("'", '"', "|", ">"):
            return text
        value = plain(text)
        if isinstance(value, float) and is_rounded(text, value):
            self._mistake(
                node,
                f"{_name(key)}={text[:40]} is beyond the range of double precision (1e-307 to 1.7e308); needs another "
                f"number, or quotes if it is text",
            )
        return value

    def _mistake(self, node: yaml.Node, rule: str) -> None:
        self.mistakes.append(f"{self.path.name}:{node.start_mark.line + 1}: {rule}")


_ANY_DIRECTION: frozenset[KeyPath] = frozenset(
    {("data", "prompt"), ("data", "response"), ("score", "system"), ("params",), ("search", "start_from")}
)
"""Values that a model reads: languages that are written from right to left need such characters."""


def _name(key: KeyPath) -> str:
    name = ".".join(map(str, key)) or "the file"
    return name if len(name) <= LONGEST_KEY else f"{name[:LONGEST_KEY]}…"


def plain(text: str) -> Value:
    """An unquoted scalar by the core schema of YAML 1.2; a whole number beyond double precision is infinity."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text) if len(text) < _LONG or abs(float(text)) < math.inf else float(text)
    if _HEX_OCT.fullmatch(text):
        return int(text, 0) if len(text) < _LONG else math.inf
    if _FLOAT.fullmatch(text):
        return float(text)
    if text.lower() in _SPECIAL:
        return float(_SPECIAL[text.lower()])
    return text


def is_rounded(text: str, value: float) -> bool:
    """Whether a number is too large for double precision, which gives infinity, or too small, which gives 0."""
    if math.isinf(value):
        return text.lower() not in _SPECIAL
    digits = text.lower().partition("e")[0]
    return value == 0 and any(digit in digits for digit in "123456789")


class _Dumper(yaml.SafeDumper):
    """Writes values that `plain` reads back: floats keep a dot, so that they stay numbers."""


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    text = repr(value)
    if text in ("inf", "-inf", "nan"):
        text = text.replace("inf", ".inf").replace("nan", ".nan")
    if "." not in text and "n" not in text:
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    quotes = None if plain(value) == value else "'"  # PyYAML would write '1e-5' without quotes
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=quotes)


_Dumper.add_representer(float, _float)
_Dumper.add_representer(str, _text)


def write_yaml(values: Mapping[str, Value]) -> str:
    """YAML text that `parse_source` reads back to equal values, keys in the order given.

    Where a text holds characters that an editor does not show, all that is not ASCII is written as escapes.
    """
    text = _dumped(values, allow_unicode=True)
    return _dumped(values, allow_unicode=False) if has_hidden(text) else text


def _dumped(values: Mapping[str, Value], *, allow_unicode: bool) -> str:
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=allow_unicode, width=110)

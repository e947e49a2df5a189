"""A study file under construction: its values, the argument that each key comes from, and its text. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hpotune.config.space.range_parsing import range_kind
from hpotune.config.yaml_source import Value, parse_source, plain, write_yaml
from hpotune.errors import StudyFileError

_ORDER = (
    "name model data lora train python command params score search budget execution retry resources env checks keep "
    "store"
)
"""Sections in the order of the file; others follow."""
_BARE = re.compile(r"[A-Za-z_][\w./-]*")
_WIDTH = 110


class StudyDraft:
    """Values of a study file by section and key, with the argument that each comes from."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.sources: dict[str, str] = {}
        """Key such as `budget.trials`, or a section -> the argument."""
        self.remarks: list[str] = []
        """Lines of the file's header: arguments that change nothing here, and what differs from Katib."""

    def put(self, key: str, value: Value, source: str) -> None:
        """Set a key such as `name` or `budget.trials`; deeper ones are part of its value."""
        section, _, name = key.partition(".")
        if not name:
            self.values[section] = value
        else:
            inner = self.values.setdefault(section, {})
            assert isinstance(inner, dict), "a section is a mapping"
            inner[name] = value
        self.sources[key] = source

    def section(self, name: str) -> dict[str, Value]:
        """The values of a section so far."""
        found = self.values.get(name)
        return found if isinstance(found, dict) else {}

    def merge(self, more: Mapping[str, Value], source: str) -> None:
        """Values of a study file that are added, or replace those from other arguments.

        Raises: StudyFileError for values that YAML cannot hold.
        """
        try:
            copy = json.loads(json.dumps(dict(more)))
        except (TypeError, ValueError) as error:
            raise StudyFileError(
                f"{source}: cannot be written as YAML ({error}); needs plain values"
            ) from None
        for section, value in copy.items():
            before = self.values.get(section)
            if isinstance(value, dict) and range_kind(value) is None and isinstance(before, dict):
                for key, inner in value.items():
                    self.put(f"{section}.{key}", _merged(before.get(key), inner), source)
            else:
                for key in [key for key in self.sources if key.partition(".")[0] == section]:
                    del self.sources[key]
                self.put(section, value, source)

    def text(self, *, title: str) -> str:
        """The file: a header of `title` and the remarks, then the sections; each key with its argument."""
        header = [f"# {line}" for line in (title, *(f"- {remark}" for remark in self.remarks))]
        names = [name for name in _ORDER.split() if name in self.values]
        names += [name for name in self.values if name not in names]
        lines = [line for name in names for line in self._section_lines(name)]
        text = "\n".join([*header, *lines]) + "\n"
        if (
            parse_source(text, path=Path("study.yaml")).values != self.values
        ):  # a text that only YAML's quotes can hold
            return "\n".join(header) + "\n" + write_yaml(self.values)
        return text

    def _section_lines(self, name: str) -> Iterator[str]:
        value = self.values[name]
        if not isinstance(value, dict) or not value or range_kind(value) is not None:
            yield self._line(name, value, key=name, indent="")
            return
        yield f"{name}:"
        for key, inner in value.items():
            yield self._line(key, inner, key=f"{name}.{key}", indent="  ")

    def _line(self, name: str, value: Value, *, key: str, indent: str) -> str:
        line = f"{indent}{_scalar(name)}: {flow(value)}"
        source = self.sources.get(key)
        if source is None:
            return line
        return f"{line}  # {source}" if len(line) + len(source) < _WIDTH else f"{indent}# {source}\n{line}"


def _merged(before: Value, now: Value) -> Value:
    """Mappings key by key; a range and any other value as a whole."""
    if not isinstance(before, dict) or not isinstance(now, dict) or range_kind(before) or range_kind(now):
        return now
    return {**before, **{key: _merged(before.get(key), value) for key, value in now.items()}}


def flow(value: Value) -> str:
    """A value on one line: `{float: [1.0e-05, 0.001], log: true}`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Value) -> str:
    if isinstance(value, str):
        return (
            value
            if _BARE.fullmatch(value) and plain(value) == value
            else json.dumps(value, ensure_ascii=False)
        )
    if isinstance(value, float):
        return write_yaml({"x": value}).strip().removeprefix("x: ")
    return "null" if value is None else json.dumps(value)

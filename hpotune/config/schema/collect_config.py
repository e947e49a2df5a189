r"""The section `score.collect`: where the values of an own function or command are read (Katib's metrics collectors).

Kinds and words are Katib's: StdOut, File, TensorFlowEvent, Push with `filter`, `path`, `format` (docs/own_code.md).
Reading is in worker/objective/collectors.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from hpotune.config.schema import Section

CollectorKind = Literal["auto", "stdout", "file", "tensorboard", "push"]
Take = Literal["last", "min", "max"]
STEP = "step"
"""The group of a filter, and the key of a JSON line, that holds the step of the values beside it."""
DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?(?:(?i:nan|inf(?:inity)?)\b|\d*(\.\d+)?([Ee][+-]?\d+)?))"
"""Katib's: `loss=0.25`, with or without spaces; and NaN and infinity, which Katib's passes over."""
_READ_BY: Mapping[CollectorKind, Sequence[str]] = {
    "auto": (),
    "stdout": ("filter",),
    "file": ("path", "format", "filter"),
    "tensorboard": ("path",),
    "push": (),
}
_NEEDS_PATH = {
    "file": "the file that the program writes, e.g. path: metrics.txt",
    "tensorboard": "the folder of the event files, e.g. path: runs",
}


def _as_filters(value: object) -> object:
    return [value] if isinstance(value, str) else value


class CollectConfig(Section):
    """Where the values of an own function or command are read."""

    kind: CollectorKind = "auto"
    """auto: what the function returns or the command writes to $HPOTUNE_RESULT, else what `hpotune.report` was given,
    else the last JSON line of a command's output. stdout: lines of the output that `filter` matches. file: a file that
    the program writes. tensorboard: scalars in event files, named by their tags. push: `hpotune.report` only."""
    filter: Annotated[list[str], BeforeValidator(_as_filters)] = Field(default_factory=list)
    r"""A regular expression or a list of them, searched for in each line (stdout; file with `format: text`). Named
    groups are metrics: `loss=(?P<loss>\S+)`; a group named `step` is the step. Without named groups the first group is
    the metric's name and the second its value. []: Katib's default, `NAME=NUMBER`."""
    path: str | None = None
    """Of file and tensorboard: relative to the trial's folder, $HPOTUNE_TRIAL_DIR, where the program writes it. null:
    none."""
    format: Literal["text", "json"] = "text"
    """Of file: text, whose lines `filter` is searched in; json: JSON lines, such as `{"step": 10, "loss": 0.5}`."""

    @property
    def filters(self) -> list[str]:
        """The regular expressions."""
        return list(self.filter) or [DEFAULT_FILTER]

    @model_validator(mode="after")
    def _keys_fit_kind(self) -> CollectConfig:
        for text in collect_mistakes(self):
            raise ValueError(text)
        return self


def collect_mistakes(collect: CollectConfig) -> Iterator[str]:
    """Errors within the section, each with `KEY: ` first."""
    given = {key for key, value in (("filter", collect.filter), ("path", collect.path)) if value}
    given |= {"format"} if collect.format != "text" else set()
    for key in sorted(given - {*_READ_BY[collect.kind]}):
        readers = [kind for kind, keys in _READ_BY.items() if key in keys]
        yield f"{key}: kind: {collect.kind} does not read it; remove it, or write kind: {' or '.join(readers)}"
    if collect.kind in _NEEDS_PATH and collect.path is None:
        yield f"path: is missing; kind: {collect.kind} needs {_NEEDS_PATH[collect.kind]}"
    if collect.path is not None:
        yield from _wrong_path(collect.path)
    if collect.format == "json" and collect.filter:
        yield "filter: format: json is read by its keys; remove filter, or write format: text"
    for pattern in collect.filter:
        yield from _wrong_filter(pattern)


def _wrong_path(path: str) -> Iterator[str]:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        rule = "needs a path relative to the trial's folder ($HPOTUNE_TRIAL_DIR), so that no two trials write one file"
        yield f"path: {path!r} {rule}; let the program write there"


def _wrong_filter(pattern: str) -> Iterator[str]:
    example = r"e.g. 'loss=(?P<loss>\S+)'"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        yield f"filter: {pattern!r} is not a regular expression ({error}); {example}"
        return
    named = set(compiled.groupindex) - {STEP}
    if not named and (compiled.groupindex or compiled.groups < 2):
        rule = "needs a named group for each metric, or two groups: the name and the value"
        yield f"filter: {pattern!r} has {compiled.groups} groups; it {rule}, {example}"


def named_metrics(collect: CollectConfig) -> set[str] | None:
    """The metrics that the filters can find; None where the program names them itself."""
    if collect.kind not in ("stdout", "file") or collect.format == "json":
        return None
    groups = [set(re.compile(pattern).groupindex) for pattern in collect.filters]
    return set().union(*groups) - {STEP} if all(groups) else None

"""A study of another program as plain data: its ranges, its trials, and what could not be taken over. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from hpotune.config.schema.study_config import NAME
from hpotune.config.text_files import read_file
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError

Direction = Literal["minimize", "maximize"]
State = Literal["finished", "pruned", "failed"]
LARGEST = 8 * 2**20
"""Bytes of a file that is read."""
MOST_TRIALS = 10_000
WIDE = 100.0
"""Largest value over the smallest from which a range that is guessed from values is logarithmic."""
SECTIONS = ("model", "data", "lora", "train", "params")
"""First parts of names that are those of a study file already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedTrial:
    """One trial that has ended."""

    number: int
    state: State
    params: Mapping[str, Value]
    """By the names of the source."""
    values: tuple[float, ...] = ()
    """In the order of the objectives; empty where it has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedStudy:
    """What a source says."""

    name: str
    origin: str
    """Such as `Optuna study bowl`."""
    ranges: Mapping[str, Value]
    """Name in the source -> range as a study file writes it, or a fixed value."""
    objectives: tuple[tuple[str, Direction], ...]
    """Metric and direction."""
    trials: tuple[ImportedTrial, ...] = ()
    sections: Mapping[str, Value] = field(default_factory=dict)
    """Whole sections that the source gives: model, data, search, budget, command."""
    notes: tuple[str, ...] = ()
    """What could not be taken over, one line each."""


def study_name(text: str) -> str:
    """A valid name of a study, near to a text."""
    found = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:64]
    return found if re.fullmatch(NAME, found) else "imported"


def number_range(
    kind: Literal["float", "int"],
    low: float,
    high: float,
    *,
    log: bool = False,
    step: float | None = None,
) -> Value:
    """A range of numbers; its only value where both ends are equal."""
    convert = int if kind == "int" else float
    if low == high:
        return convert(low)
    found: dict[str, Value] = {kind: [convert(low), convert(high)]}
    if log:
        found["log"] = True
    elif step is not None and not (kind == "int" and step == 1):
        found["step"] = convert(step)
    return found


def choice_range(options: Sequence[Value]) -> Value:
    """A choice; its only value where there is one."""
    different = list({json.dumps(option, sort_keys=True): option for option in options}.values())
    return different[0] if len(different) == 1 else {"choice": different}


def guessed_range(values: Iterable[Value]) -> Value:
    """The narrowest range around values: numbers as a range, all else as a choice."""
    known = list(values)
    numbers = [one for one in known if isinstance(one, (int, float)) and not isinstance(one, bool)]
    if not numbers or len(numbers) < len(known):
        return choice_range(known)
    low, high = min(numbers), max(numbers)
    kind: Literal["float", "int"] = "int" if all(isinstance(one, int) for one in numbers) else "float"
    return number_range(kind, low, high, log=low > 0 and high / low >= WIDE)


def finite(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def parsed_direction(text: object, *, where: str) -> Direction:
    """A direction in the words of any of the tools.

    Raises: StudyFileError for other words.
    """
    word = str(text).strip().lower()
    if word in ("minimize", "minimise", "min"):
        return "minimize"
    if word in ("maximize", "maximise", "max"):
        return "maximize"
    raise StudyFileError(f"{where}: {text!r} is no direction; needs minimize or maximize")


def read_text(path: Path) -> str:
    """The text of a file.

    Raises: StudyFileError for a file that cannot be read, is too large, or is no text: a pickle is never read.
    """
    try:
        content = read_file(path, largest=LARGEST)
    except OSError as error:
        raise StudyFileError(
            f"{path}: cannot be read ({error.strerror}); check the path and its size"
        ) from None
    if content[:1] == b"\x80":
        raise StudyFileError(
            f"{path}: is a Python pickle, which could run any program when it is read; export it as .csv, or in a "
            "storage"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise StudyFileError(f"{path}: is no text in UTF-8; needs a file of one of the formats") from None


def read_yaml(path: Path) -> dict[str, Value]:
    """The mapping of a YAML file, by the safe loader and without aliases, which could multiply.

    Raises: StudyFileError.
    """
    text = read_text(path)
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise StudyFileError(
                f"{path}: has aliases (*name), which are not followed; write their values out"
            )
        found = yaml.safe_load(text)
        json.dumps(found)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StudyFileError(f"{path}: cannot be read as YAML ({reason}); correct it") from None
    if not isinstance(found, dict):
        raise StudyFileError(f"{path}: holds no mapping; needs a file of one of the formats")
    return found

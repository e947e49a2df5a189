"""What `hpotune extend` has added to a study's budget: words read, merged over the study file, kept in the folder.

extension.json: {"trials": {"to": 70, "over": 50}}. `over` is what the file said then: while it says so still, `to` is
in force; once the file was edited, the larger of both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import Path

from pydantic import ValidationError

from hpotune.config.schema.execution import BudgetConfig
from hpotune.config.schema.study_config import Json
from hpotune.config.schema.walltime import TIME, seconds
from hpotune.errors import StudyFileError

Extension = Mapping[str, Mapping[str, Json]]
_NEEDS = {
    "trials": "+20 or 70",
    "parallel": "+4 or 8",
    "max_failed": "+5 or 10",
    "gpu_hours": "+50, 200 or none",
    "wall_time": "+12:00:00, 2-00:00:00 or none",
    "until": "2026-12-31, '2026-12-31 18:00' or none",
}
"""Keys of the budget that can be extended, and what a value looks like."""


def read_extension(file: Path) -> Extension:
    """What was added to the study; nothing where there is no such file.

    Raises: StudyFileError for a damaged one.
    """
    try:
        told: Extension = json.loads(file.read_text(encoding="utf-8"))
        BudgetConfig.model_validate({"trials": 1, **{key: change["to"] for key, change in told.items()}})
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise StudyFileError(f"{file}: is damaged; remove it, and extend the study again") from None
    return told


def in_force(budget: BudgetConfig, extension: Extension) -> BudgetConfig:
    """The budget with what was added to it."""
    stands = as_json(budget)
    added = {}
    for key, change in extension.items():
        unedited = stands[key] == change["over"]
        added[key] = change["to"] if unedited else max(stands[key], change["to"], key=lambda v: _size(key, v))
    return BudgetConfig.model_validate(stands | added) if added else budget


def extended(file: BudgetConfig, before: Extension, words: Mapping[str, str], *, finished: int) -> Extension:
    """What was added before, and what the words say: `+20` adds to what is in force, `70` is the new value.

    Raises: StudyFileError with one line for each word that is wrong.
    """
    now, stands = as_json(in_force(file, before)), as_json(file)
    told: dict[str, Mapping[str, Json]] = dict(before)
    mistakes = []
    for key, word in words.items():
        try:
            to = _value(key, word.strip(), now[key])
            if key == "trials" and to < finished:
                raise ValueError(f"{finished} trials have finished; needs {finished} or more")
            told[key] = {"to": to, "over": stands[key]}
        except ValueError as error:
            mistakes.append(f"--{key.replace('_', '-')} {word}: {error}")
    if mistakes:
        raise StudyFileError(*mistakes)
    return told


def overruled(file: BudgetConfig, extension: Extension) -> list[str]:
    """One line for each key that the file was edited at, and that an extension holds at another value."""
    stands, now = as_json(file), as_json(in_force(file, extension))
    return [
        f"budget.{key}: {now[key]} is in force, as extended; the file says {stands[key]} "
        f"(`hpotune extend --{key.replace('_', '-')} {stands[key]}` goes back to it)"
        for key, change in extension.items()
        if stands[key] not in (change["over"], now[key])
    ]


def as_json(budget: BudgetConfig) -> dict[str, Json]:
    """The budget as plain values; moments as the file writes them."""
    plain: dict[str, Json] = budget.model_dump(mode="json")
    return {
        key: value.replace("T", " ") if key == "until" and value else value for key, value in plain.items()
    }


def _value(key: str, word: str, now: Json) -> Json:
    """The new value of a key.

    Raises: ValueError with the rule.
    """
    if word == "none" and BudgetConfig.model_fields[key].default is None:
        return None
    more = word.startswith("+")
    if more and key == "until":
        raise ValueError(f"needs a moment, such as {_NEEDS[key]}")
    if more and now is None:
        raise ValueError(f"budget.{key} has no limit, so there is nothing to add to; a bare value sets one")
    try:
        value = _parsed(key, word.removeprefix("+"))
        if more:
            value = _sum(key, now, value)
        checked = as_json(BudgetConfig.model_validate({"trials": 1, key: value}))[key]
    except (ValidationError, ValueError):
        raise ValueError(f"needs {_NEEDS[key]}") from None
    return checked


def _parsed(key: str, word: str) -> Json:
    if key == "until":
        return word
    if key == "wall_time":
        if not re.fullmatch(TIME, word):
            raise ValueError(word)
        return word
    if key == "gpu_hours":
        return float(word)
    if not word.isdecimal():
        raise ValueError(word)
    return int(word)


def _sum(key: str, now: Json, more: Json) -> Json:
    if _size(key, more) <= 0:
        raise ValueError("adds nothing")
    if key != "wall_time":
        return now + more
    total = seconds(now) + seconds(more)
    days, rest = divmod(total, 86_400)
    return f"{days}-{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def _size(key: str, value: Json) -> float:
    """What makes one value larger than another; no limit is the largest."""
    if value is None:
        return float("inf")
    if key == "wall_time":
        return seconds(value)
    if key == "until":
        return _moment(value).timestamp()
    return float(value)


def _moment(text: str) -> datetime:
    if len(text) > 10:
        return datetime.fromisoformat(text)
    return datetime.combine(date.fromisoformat(text), time.max)

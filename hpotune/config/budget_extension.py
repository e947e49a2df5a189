"""The extension of a study's budget by `hpotune extend`: its options are parsed here and merged into the study file.

extension.json: {"trials": {"to": 70, "over": 50}}. `over` is the value of the study file at that time: while the file
still has it, `to` is used; after the file was edited, the larger of the two values is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import Path

from pydantic import ValidationError

from hpotune.config.json_file import decoding, read_object
from hpotune.config.schema.execution import BudgetConfig
from hpotune.config.schema.walltime import TIME, seconds
from hpotune.errors import StudyFileError

BudgetValue = int | float | str | None
"""A value of the budget as JSON: a number, a time or a date as text, or null for no limit."""
Extension = Mapping[str, Mapping[str, BudgetValue]]
"""Key of the budget -> {"to": the new value, "over": the value of the study file at that time}."""
_NEEDS = {
    "trials": "+20 or 70",
    "parallel": "+4 or 8",
    "max_failed": "+5 or 10",
    "gpu_hours": "+50, 200 or none",
    "wall_time": "+12:00:00, 2-00:00:00 or none",
    "until": "2026-12-31, '2026-12-31 18:00' or none",
}
"""Keys of the budget that can be extended -> examples of a value."""


def read_extension(file: Path) -> Extension:
    """The extension in a file; empty if there is no such file.

    Raises: StudyFileError for a damaged file.
    """
    if not os.path.lexists(file):
        return {}
    again = "restore it, or remove it and extend the study again"
    with decoding(file, next_step=again):
        extension: Extension = read_object(file, next_step=again)
        budget = {key: change["to"] for key, change in extension.items()}
        BudgetConfig.model_validate(
            {"trials": 1, **{key: change["over"] for key, change in extension.items()}}
        )
        BudgetConfig.model_validate({"trials": 1, **budget})
        return extension


def effective_budget(budget: BudgetConfig, extension: Extension) -> BudgetConfig:
    """The budget of the study file with the extension merged into it."""
    in_file = as_json(budget)
    merged = {}
    for key, change in extension.items():
        unedited = in_file[key] == change["over"]
        merged[key] = (
            change["to"] if unedited else max(in_file[key], change["to"], key=lambda v: _size(key, v))
        )
    return BudgetConfig.model_validate(in_file | merged) if merged else budget


def merged_extension(
    file: BudgetConfig, before: Extension, words: Mapping[str, str], *, finished: int
) -> Extension:
    """The earlier extension and the new options: `+20` is added to the current value, `70` is the new value.

    `words`: key -> value of the option. Raises: StudyFileError with one line for each invalid value.
    """
    now, in_file = as_json(effective_budget(file, before)), as_json(file)
    merged: dict[str, Mapping[str, BudgetValue]] = dict(before)
    mistakes = []
    for key, word in words.items():
        try:
            to = _value(key, word.strip(), now[key])
            if key == "trials" and isinstance(to, int) and to < finished:
                raise ValueError(f"{finished} trials have finished; needs {finished} or more")
            merged[key] = {"to": to, "over": in_file[key]}
        except ValueError as error:
            mistakes.append(f"--{key.replace('_', '-')} {word}: {error}")
    if mistakes:
        raise StudyFileError(*mistakes)
    return merged


def overridden_edits(file: BudgetConfig, extension: Extension) -> list[str]:
    """One line for each key that was edited in the study file, but whose extended value is larger and so is used."""
    in_file, now = as_json(file), as_json(effective_budget(file, extension))
    return [
        f"budget.{key}={in_file[key]} in the study file is not used: it was extended to {now[key]}; "
        f"`hpotune extend --{key.replace('_', '-')} {in_file[key]}` restores it"
        for key, change in extension.items()
        if in_file[key] not in (change["over"], now[key])
    ]


def as_json(budget: BudgetConfig) -> dict[str, BudgetValue]:
    """The budget as JSON values; dates in the study file's format."""
    plain: dict[str, BudgetValue] = budget.model_dump(mode="json")
    return {
        key: value.replace("T", " ") if key == "until" and isinstance(value, str) else value
        for key, value in plain.items()
    }


def _value(key: str, word: str, now: BudgetValue) -> BudgetValue:
    """The new value of a key.

    Raises: ValueError with the rule that is violated.
    """
    if word == "none" and BudgetConfig.model_fields[key].default is None:
        return None
    more = word.startswith("+")
    if more and key == "until":
        raise ValueError(f"needs a date, such as {_NEEDS[key]}")
    if more and now is None:
        raise ValueError(f"budget.{key} has no limit that could be raised; write a value without +")
    try:
        value = _parsed(key, word.removeprefix("+"))
        if more:
            value = _sum(key, now, value)
        checked = as_json(BudgetConfig.model_validate({"trials": 1, key: value}))[key]
    except (ValidationError, ValueError):
        raise ValueError(f"needs {_NEEDS[key]}") from None
    return checked


def _parsed(key: str, word: str) -> BudgetValue:
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


def _sum(key: str, now: BudgetValue, more: BudgetValue) -> BudgetValue:
    if _size(key, more) <= 0:
        raise ValueError("adds nothing")
    if isinstance(now, (int, float)) and isinstance(more, (int, float)):
        return now + more
    total = seconds(str(now)) + seconds(str(more))
    days, rest = divmod(total, 86_400)
    return f"{days}-{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def _size(key: str, value: BudgetValue) -> float:
    """Sort key of a value; no limit is the largest."""
    if value is None:
        return float("inf")
    if key == "wall_time":
        return seconds(str(value))
    if key == "until":
        return _moment(str(value)).timestamp()
    return float(value)


def _moment(text: str) -> datetime:
    if len(text) > 10:
        return datetime.fromisoformat(text)
    return datetime.combine(date.fromisoformat(text), time.max)

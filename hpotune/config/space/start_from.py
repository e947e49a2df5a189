"""`search.start_from`: the points of the first trials. Validates points; reads no files (warm_start/ does).

An item is a point (`{lora.r: 16}`: names have dots), a path (a study's folder, a .csv file), or `{path: …, take: n}`,
with `known: true` for a .csv file whose values count as results.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpotune.config.space.ranges import Range, Space, same
from hpotune.config.text.outside_text import csv_json, csv_text
from hpotune.config.text_files import expanded
from hpotune.config.yaml_source import KeyPath, Mistake, Mistakes, Value, plain
from hpotune.errors import nearest

BEST = 3
"""Points that are taken from an earlier study by default."""
KEY: KeyPath = ("search", "start_from")
Point = dict[str, Value]
"""Values of the study file by dotted name; some may be missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One item of the list."""

    where: KeyPath
    point: Point = field(default_factory=dict)
    path: str = ""
    """Empty for a point."""
    take: int | None = None
    """Largest number of points; None: 3 of a study, all rows of a .csv file."""
    known: bool = False
    """Whether the values of a .csv file count as results: the search learns from its rows and does not repeat them."""


def items(values: Mapping[str, Value], found: dict[KeyPath, str] | None = None) -> list[Item]:
    """The valid items of a file; `found` gains an error for each that is invalid."""
    search = values.get("search")
    listed = search.get("start_from") if isinstance(search, dict) else None
    if listed is None:
        return []
    indexed = enumerate(listed) if isinstance(listed, list) else [(None, listed)]
    mistakes, kept = {} if found is None else found, []
    for index, value in indexed:
        where = KEY if index is None else (*KEY, index)
        try:
            kept.append(_item(value, where))
        except ValueError as error:
            mistakes.setdefault(where, f"search.start_from: {error}")
    return kept


def _item(value: Value, where: KeyPath) -> Item:
    if isinstance(value, str) and value.strip():
        return Item(where=where, path=value)
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{value!r} is neither a point, nor a path, nor {{path: …, take: n}}")
    if "path" not in value:
        return Item(where=where, point=value)
    path, take, known = value["path"], value.get("take"), value.get("known", False)
    if stray := sorted(value.keys() - {"path", "take", "known"}):
        raise ValueError(f"{stray[0]!r} is not allowed beside path; valid: path, take, known")
    if not isinstance(path, str) or not path.strip():
        raise ValueError(f"path: {path!r} needs the folder of a study or a .csv file")
    if take is not None and (not isinstance(take, int) or isinstance(take, bool) or take < 1):
        raise ValueError(f"take: {take!r} needs a whole number from 1")
    if not isinstance(known, bool) or (known and not path.strip().endswith(".csv")):
        raise ValueError(f"known: {known!r} needs true or false, and a .csv file with a column `value`")
    return Item(where=where, path=path, take=take, known=known)


def mistakes(values: Mapping[str, Value], space: Space) -> Iterator[Mistake]:
    """The errors of the items, and of the points among them."""
    found: dict[KeyPath, str] = {}
    for item in items(values, found):
        for name, text in faults(item.point, space).items():
            found.setdefault((*item.where, name), f"search.start_from: {text}")
    yield from found.items()


def faults(point: Point, space: Space) -> dict[str, str]:
    """The errors of a point by the name of the value; a broken constraint has an empty name."""
    ranges = {r.name: r for r in space.ranges}
    found = {}
    for name, value in point.items():
        r = ranges.get(name)
        error = fault(r, value) if r else _unsearched(name, space)
        if error:
            found[name] = f"{name}={json.dumps(value)} {error}"
    if not found:
        for index in space.violated(point)[:1]:
            found[""] = f"the point breaks the constraint {space.constraints[index]!r}; change one of the two"
    return found


def _unsearched(name: str, space: Space) -> str:
    if name in space.fixed:
        return f"is not searched: the file sets it to {json.dumps(space.fixed[name])}; remove it, or make it a range"
    return f"is not a range of this file; {nearest(name, [r.name for r in space.searched])}"


def fault(r: Range, value: Value) -> str:
    """Why a value is not in a range; empty if it is."""
    if r.kind == "expr":
        return f"is computed (expr {r.text!r}); leave it out"
    if r.kind == "choice":
        if option(r, value) is not None:
            return ""
        return f"is not one of the choices {json.dumps(list(r.options))}"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "needs a number"
    if not r.low <= value <= r.high:
        return f"is outside the range from {r.low:g} to {r.high:g}; give a value inside, or widen the range"
    near = near_value(r, value)
    whole = r.kind == "int" and value != int(value)
    if whole or (r.step is not None and near != value and abs(float(str(near)) - value) > 1e-9 * r.step):
        return f"is between two values of the range; the nearest is {near:g}" if near is not None else ""
    return ""


def option(r: Range, value: Value) -> int | None:
    """The index of a value among the options: the one that is written alike, else the first that means the same."""
    texts = [json.dumps(one) for one in r.options]
    if json.dumps(value) in texts:
        return texts.index(json.dumps(value))
    return next((index for index, one in enumerate(r.options) if same(one, value)), None)


def point_cell(value: Value) -> str:
    """The cell of a CSV file that reads back as the value."""
    if isinstance(value, str) and value and value.strip() == value and plain(value) == value:
        return csv_json(value) if value[0] in "[{" else csv_text(value)
    return csv_json(value)


def near_value(r: Range, value: Value) -> int | float | None:
    """The value of an interval that is nearest to a number; None for other values."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    inside = min(max(value, r.low), r.high)
    if r.step is not None:
        steps = int((r.high - r.low) / r.step + 1e-9)
        inside = min(r.low + r.step * min(round((inside - r.low) / r.step), steps), r.high)
    return round(inside) if r.kind == "int" else float(inside)


def absolute_items(values: dict[str, Value], *, home: Path, found: Mistakes) -> None:
    """Makes the paths among the items absolute; changes `values`. `found` gains an error for each that cannot be."""
    search = values.get("search")
    if not isinstance(search, dict) or "start_from" not in search:
        return
    listed = search["start_from"]
    made = []
    for index, value in enumerate(listed if isinstance(listed, list) else [listed]):
        try:
            made.append(_absolute(value, home))
        except ValueError as error:
            where: KeyPath = (*KEY, index) if isinstance(listed, list) else KEY
            found.setdefault(where, f"search.start_from: {value!r} {error}")
            made.append(value)
    search["start_from"] = made if isinstance(listed, list) else made[0]


def _absolute(value: Value, home: Path) -> Value:
    if isinstance(value, str) and value.strip():
        return str(expanded(value, home))
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        return {**value, "path": _absolute(value["path"], home)}
    return value

"""`search.start_from`: what the first trials take. Points are checked here; files are only named, others read them.

An item is a point (`{lora.r: 16}`: names have dots), a path (a study's folder, a .csv file), or `{path: …, take: n}`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpotune.config.space import constraints
from hpotune.config.space.ranges import Range, Space
from hpotune.config.yaml_source import KeyPath, Value
from hpotune.errors import nearest

BEST = 3
"""Points taken from an earlier study, where the file does not say how many."""
PLACE: KeyPath = ("search", "start_from")
Point = dict[str, Value]
"""Values of the study file by dotted name; some may be missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One item of the list."""

    where: KeyPath
    point: Point = field(default_factory=dict)
    path: str = ""
    """Empty: it is a point."""
    take: int | None = None
    """At most so many; None: 3 of a study, all rows of a file."""


def items(values: Mapping[str, Value], found: dict[KeyPath, str] | None = None) -> list[Item]:
    """The items of a file; `found` gains a mistake for each that is none."""
    search = values.get("search")
    listed = search.get("start_from") if isinstance(search, dict) else None
    if listed is None:
        return []
    places = enumerate(listed) if isinstance(listed, list) else [(None, listed)]
    told, kept = {} if found is None else found, []
    for index, value in places:
        where = PLACE if index is None else (*PLACE, index)
        try:
            kept.append(_item(value, where))
        except ValueError as error:
            told.setdefault(where, f"search.start_from: {error}")
    return kept


def _item(value: Value, where: KeyPath) -> Item:
    if isinstance(value, str) and value.strip():
        return Item(where=where, path=value)
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{value!r} is no point, no path and no {{path: …, take: n}}")
    if "path" not in value:
        return Item(where=where, point=value)
    path, take, stray = value["path"], value.get("take"), sorted(value.keys() - {"path", "take"})
    if stray:
        raise ValueError(f"{stray[0]!r} may not stand beside path; valid: path, take")
    if not isinstance(path, str) or not path.strip():
        raise ValueError(f"path: {path!r} needs a folder of a study, or a .csv file")
    if take is not None and (not isinstance(take, int) or isinstance(take, bool) or take < 1):
        raise ValueError(f"take: {take!r} needs a whole number from 1")
    return Item(where=where, path=path, take=take)


def mistakes(values: Mapping[str, Value], space: Space) -> Iterator[tuple[KeyPath, str]]:
    """Place and text of what is wrong with the items, and with the points among them."""
    found: dict[KeyPath, str] = {}
    for item in items(values, found):
        for name, text in faults(item.point, values, space).items():
            found.setdefault((*item.where, name), f"search.start_from: {text}")
    yield from found.items()


def faults(point: Point, values: Mapping[str, Value], space: Space) -> dict[str, str]:
    """What is wrong with a point, by the name that it is wrong with; a broken constraint by an empty one."""
    ranges = {r.name: r for r in space.ranges}
    found = {}
    for name, value in point.items():
        r = ranges.get(name)
        told = fault(r, value) if r else _unsearched(name, values, space)
        if told:
            found[name] = f"{name}={json.dumps(value)} {told}"
    if not found:
        for index in constraints.broken(space, point, constraints.fixed_values(values, space))[:1]:
            found[""] = f"the point breaks the constraint {space.constraints[index]!r}; change one of the two"
    return found


def _unsearched(name: str, values: Mapping[str, Value], space: Space) -> str:
    fixed = constraints.fixed_values(values, space)
    if name in fixed:
        return (
            f"is not searched: the file sets it to {json.dumps(fixed[name])}; remove it, or make it a range"
        )
    return f"is no range of this file; {nearest(name, [r.name for r in space.searched])}"


def fault(r: Range, value: Value) -> str:
    """Why a range does not hold a value; empty where it does."""
    if r.kind == "expr":
        return f"follows from others (expr {r.text!r}); leave it out"
    if r.kind == "choice":
        if option(r, value) is not None:
            return ""
        return f"is none of the choices {json.dumps(list(r.options))}"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "needs a number"
    if not r.low <= value <= r.high:
        return f"lies outside the range from {r.low:g} to {r.high:g}; write one inside, or widen the range"
    near = near_value(r, value)
    whole = r.kind == "int" and value != int(value)
    if whole or (r.step is not None and near != value and abs(float(str(near)) - value) > 1e-9 * r.step):
        return f"lies between two values of the range; the nearest is {near:g}" if near is not None else ""
    return ""


def option(r: Range, value: Value) -> int | None:
    """The place of a choice among its options: 1 and 1.0 are the same, 1 and true and "1" are not."""
    texts = [json.dumps(one) for one in r.options]
    if json.dumps(value) in texts:
        return texts.index(json.dumps(value))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        alike = [i for i, one in enumerate(r.options) if one == value and not isinstance(one, bool)]
        return next(iter(alike), None)
    return None


def near_value(r: Range, value: Value) -> int | float | None:
    """The value of an interval that is nearest to a number; None for what is no number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    inside = min(max(value, r.low), r.high)
    if r.step is not None:
        steps = int((r.high - r.low) / r.step + 1e-9)
        inside = min(r.low + r.step * min(round((inside - r.low) / r.step), steps), r.high)
    return round(inside) if r.kind == "int" else float(inside)


def absolute_items(values: dict[str, Value], *, home: Path) -> None:
    """Makes the paths among the items absolute, in place."""
    search = values.get("search")
    if not isinstance(search, dict) or "start_from" not in search:
        return
    listed = search["start_from"]
    made = [_absolute(value, home) for value in (listed if isinstance(listed, list) else [listed])]
    search["start_from"] = made if isinstance(listed, list) else made[0]


def _absolute(value: Value, home: Path) -> Value:
    if isinstance(value, str) and value.strip():
        return os.path.normpath(home / Path(value).expanduser())
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        return {**value, "path": _absolute(value["path"], home)}
    return value

"""The ranges of a study file: from its values to a Space, or one error for each range that is wrong. Reads nothing.

A range is given instead of a value: `{float: [low, high]}`, `{int: [low, high]}`, `{normal: [mean, sd]}`,
`{lognormal: [mean, sd]}`, `{choice: [...]}`, or `{expr: "..."}` for a value that follows from others.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeGuard

from hpotune.config.comparability import check_range_allowed
from hpotune.config.space import expressions
from hpotune.config.space.normal_range import LARGEST_WHOLE, MOST_STEPS, normal_interval
from hpotune.config.space.ranges import (
    Confidence,
    Range,
    Space,
    dotted,
    leaves,
    needs,
    without,
)
from hpotune.config.space.start_from import option
from hpotune.config.yaml_source import KeyPath, Mistake, Mistakes, Value

MOST_RANGES = 200
MOST_OPTIONS = 1_000
"""Options of one choice."""
MOST_OPTIONS_TOGETHER = 2_000
"""Options of all choices of a file: each is validated, which takes about a millisecond."""
KINDS = ("normal", "lognormal", "float", "int", "choice", "expr")
"""Keys of a range in the file. `int: true` may be given beside the first two, so they are looked up first."""
CONFIDENCE: tuple[Confidence, ...] = ("weak", "medium", "strong")
_SEARCHED = frozenset({"prior", "confidence", "when"})
OPTIONS: dict[str, frozenset[str]] = {
    "float": _SEARCHED | {"log", "step"},
    "int": _SEARCHED | {"log", "step"},
    "normal": _SEARCHED | {"low", "high", "int", "step"},
    "lognormal": _SEARCHED | {"low", "high", "int"},
    "choice": _SEARCHED | {"ordered"},
    "expr": frozenset({"when"}),
}
"""Kind of range -> keys that may be given beside it."""
_NO_RANGES: tuple[KeyPath, ...] = (("search", "options"), ("search", "start_from"))
"""Sections in which a mapping with a kind's name is an ordinary value."""
_MAY_HOLD = ("lora", "train", "params")
"""Sections in which a mapping like `{itn: [0, 9]}` is most likely a misspelt range."""


def parse_space(values: dict[str, Value], mistakes: Mistakes) -> Space | None:
    """The ranges and the fixed values of a file; None if one of them is wrong: `mistakes` gains an error for each."""
    ranges: list[Range] = []
    for key, value in mappings(values):
        if key[:2] in _NO_RANGES:
            continue
        try:
            if range_kind(value) is None:
                _check_spelling(value, key)
            else:
                _check_param_names(value, key)
                check_range_allowed(key, values)
                ranges.append(parse_range(value, key))
        except ValueError as error:
            mistakes[key] = f"{dotted(key)}: {error}"
    mistakes.update(_names_given_twice(values, ranges))
    mistakes.update(_too_many(ranges))
    if mistakes:
        return None
    try:
        return replace(ordered(ranges), fixed=_fixed_values(values, ranges))
    except CircleError as error:
        mistakes[error.key] = f"{dotted(error.key)}: {error}"
        return None


def _too_many(ranges: Sequence[Range]) -> Iterator[Mistake]:
    """An error for the first range beyond a limit on all of them together."""
    if len(ranges) > MOST_RANGES:
        where = ranges[MOST_RANGES].where
        yield where, f"{dotted(where)}: the file has {len(ranges)} ranges; needs at most {MOST_RANGES}"
    options = 0
    for r in ranges:
        options += len(r.options)
        if options > MOST_OPTIONS_TOGETHER:
            rule = f"needs at most {MOST_OPTIONS_TOGETHER:,} of all choices together"
            yield r.where, f"{r.name}: the file has more than {MOST_OPTIONS_TOGETHER:,} options; {rule}"
            return


def _fixed_values(values: dict[str, Value], ranges: Iterable[Range]) -> dict[str, Value]:
    """The values that are not ranges, by dotted name."""
    names = {r.name for r in ranges}
    return {
        name: value for name, value in leaves(without(values, [r.where for r in ranges])) if name not in names
    }


def _names_given_twice(values: dict[str, Value], ranges: Sequence[Range]) -> Iterator[Mistake]:
    """An error for each range whose dotted name another value has too: `{a.b: 1}` beside `{a: {b: 2}}`."""
    names = Counter(name for name, _ in leaves(without(values, [r.where for r in ranges])))
    names += Counter(r.name for r in ranges if not isinstance(r.where[-1], int))
    for r in ranges:
        if names[r.name] > 1:
            yield r.where, f"{r.name}: two values have this name, one by a key with a dot in it; rename one"


def _check_param_names(value: Mapping[str, Value], key: KeyPath) -> None:
    """Raises: ValueError for a param that has the name of a kind of range, so that all params look like one range."""
    if key == ("params",):
        kind = range_kind(dict(value))
        rule = (
            f"give a range for one value, such as params.x: {{{kind}: …}}; a param cannot be named {kind!r}"
        )
        raise ValueError(f"is a range as a whole; {rule}")


def range_kind(value: Value) -> str | None:
    """The kind of range that a value of the file is; None for an ordinary value."""
    found = [kind for kind in KINDS if isinstance(value, dict) and kind in value]
    return found[0] if found else None


def mappings(value: Value, key: KeyPath = ()) -> Iterator[tuple[KeyPath, dict[str, Value]]]:
    """Every mapping of a file's values with its path; of a range, only the range itself."""
    if isinstance(value, dict):
        yield key, value
    if isinstance(value, (dict, list)) and (range_kind(value) is None or not key):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from mappings(item, (*key, name))


def _check_spelling(value: Mapping[str, Value], key: KeyPath) -> None:
    """Raises: ValueError for a mapping that looks like a range with a misspelt kind: `{itn: [0, 9]}`."""
    if len(key) < 2 or (key[0] not in _MAY_HOLD and key[:2] != ("score", "generation")):
        return
    for word, inner in value.items():
        near = difflib.get_close_matches(str(word), KINDS, n=1, cutoff=0.6)
        if near and isinstance(inner, list):
            raise ValueError(f"{word!r} is not a kind of range; did you mean {near[0]!r}?")


def parse_range(value: dict[str, Value], where: KeyPath) -> Range:
    """The range that a mapping of the file means.

    Raises: ValueError with the rule that is broken.
    """
    kind = range_kind(value)
    assert kind is not None, "parse_range is called for ranges only"
    stray = set(value) - {kind} - OPTIONS[kind]
    if stray:
        word = sorted(stray)[0]
        rule = (
            "one of float, int, normal, lognormal, choice, expr"
            if word in KINDS
            else f"{kind}, {', '.join(sorted(OPTIONS[kind]))}"
        )
        raise ValueError(f"{word!r} is not allowed beside {kind!r}; needs {rule}")
    when = _conditions(value.get("when", {}))
    if when and isinstance(where[-1], int):
        raise ValueError("when: an item of a list always exists; put the condition on the whole list")
    found = _PARSERS[kind](value, where)
    return replace(found, when=when, confidence=_confidence(value))


def _confidence(value: Mapping[str, Value]) -> Confidence:
    found = value.get("confidence", "weak")
    known = next((word for word in CONFIDENCE if word == found), None)
    if known is None:
        raise ValueError(f"confidence: {found!r} needs one of {', '.join(CONFIDENCE)}")
    if "confidence" in value and value.get("prior") is None:
        raise ValueError(f"confidence: {found} is the confidence in a prior, and none is given; add prior")
    return known


def _conditions(value: Value) -> dict[str, tuple[Value, ...]]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError("when: needs {name: value}, such as {train.optim: sgd}")
    return {key: tuple(wanted) if isinstance(wanted, list) else (wanted,) for key, wanted in value.items()}


def _expression(value: dict[str, Value], where: KeyPath) -> Range:
    text = value["expr"]
    if not isinstance(text, str):
        raise ValueError(f'expr: {text!r} needs text, such as "2 * lora.r"')
    try:
        expressions.names_in(text)
    except ValueError as error:
        raise ValueError(f"expr: {text!r} {error}") from None
    return Range(where=where, kind="expr", text=text)


def _choice(value: dict[str, Value], where: KeyPath) -> Range:
    options = value["choice"]
    if not isinstance(options, list) or not options:
        raise ValueError(f"choice: {options!r} needs a list of at least one value")
    inner = next((option for option in options if range_kind(option)), None)
    if inner is not None:
        raise ValueError(
            f"choice: {inner!r} is a range inside a range; write its values out, or a range of its own with `when`"
        )
    if len(options) > MOST_OPTIONS:
        raise ValueError(f"choice: has {len(options)} options; needs at most {MOST_OPTIONS:,}")
    written = Counter(json.dumps(option, sort_keys=True) for option in options)
    twice = next((text for text, count in written.items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"choice: {twice} is given twice; needs different values")
    prior, ordered = value.get("prior"), value.get("ordered", False)
    if not isinstance(ordered, bool):
        raise ValueError(f"ordered: {ordered!r} needs true or false")
    found = Range(where=where, kind="choice", options=tuple(options), prior=prior, ordered=ordered)
    if prior is not None and option(found, prior) is None:
        raise ValueError(f"prior: {prior!r} is not one of the choices {options!r}")
    return found


def _normal(value: dict[str, Value], where: KeyPath) -> Range:
    kind = "lognormal" if "lognormal" in value else "normal"
    of = normal_interval(value, kind)
    return _with_prior(
        Range(
            where=where, kind="int" if of.whole else "float", low=of.low, high=of.high, log=kind == "lognormal",
            step=of.step, measure=(of.mean, of.sd),
        ),
        value.get("prior"),
    )  # fmt: skip


def _with_prior(found: Range, prior: Value) -> Range:
    low, high = found.low, found.high
    if prior is not None and (not _number(prior) or not low <= prior <= high):
        raise ValueError(f"prior: {prior!r} needs a number from {low:g} to {high:g}")
    if found.kind == "int" and prior is not None and prior != int(prior):
        raise ValueError(f"prior: {prior!r} needs a whole number, as the range is int")
    return replace(found, prior=prior)


def _uniform(value: dict[str, Value], where: KeyPath) -> Range:
    kind: Literal["float", "int"] = "int" if "int" in value else "float"
    low, high = _bounds(value[kind], kind)
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"log: {log!r} needs true or false")
    if log and low <= 0:
        example = "1" if kind == "int" else "1e-6"
        raise ValueError(f"{kind}[0]={low:g} with log: true; needs low > 0, e.g. {example}")
    step = _step(value.get("step"), kind, log=log, width=high - low)
    found = Range(where=where, kind=kind, low=low, high=high, log=log, step=step)
    return _with_prior(found, value.get("prior"))


def _step(step: Value, kind: str, *, log: bool, width: float) -> float | None:
    if step is None:
        return None
    whole = "whole " if kind == "int" else ""
    if log or not _number(step) or step <= 0 or (kind == "int" and step != int(step)):
        raise ValueError(f"step: {step!r} needs a positive {whole}number, without log: true")
    if width / step > MOST_STEPS:
        raise ValueError(f"step: {step:g} gives more than {MOST_STEPS:,} values; needs a larger one, or none")
    if step > width:
        raise ValueError(f"step: {step:g} is wider than the range ({width:g}); needs a smaller one")
    return step


def _bounds(value: Value, kind: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{kind}: {value!r} needs two numbers, [low, high]")
    low, high = value
    if not _number(low) or not _number(high):
        raise ValueError(f"{kind}: {value!r} needs two numbers, [low, high]")
    if not abs(float(low)) + abs(float(high)) < float("inf"):
        raise ValueError(f"{kind}: [{low:g}, {high:g}] needs finite numbers")
    if kind == "int" and max(abs(low), abs(high)) > LARGEST_WHOLE:
        raise ValueError(
            f"int: [{low:g}, {high:g}] needs numbers up to 2^53, beyond which they are not exact"
        )
    if kind == "int" and (low != int(low) or high != int(high)):
        raise ValueError(f"int: {value!r} needs whole numbers; write float for others")
    if not low < high:
        raise ValueError(f"{kind}: [{low:g}, {high:g}] needs low < high; a single value needs no range")
    return low, high


def _number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_PARSERS: Mapping[str, Callable[[dict[str, Value], KeyPath], Range]] = {
    "float": _uniform,
    "int": _uniform,
    "normal": _normal,
    "lognormal": _normal,
    "choice": _choice,
    "expr": _expression,
}


def ordered(ranges: Iterable[Range]) -> Space:
    """The space of these ranges, each after those that its condition or expression reads.

    Raises: CircleError if ranges read each other.
    """
    waiting = {r.name: r for r in ranges}
    done: dict[str, Range] = {}
    while waiting:
        ready = [r for r in waiting.values() if not (needs(r) & waiting.keys())]
        if not ready:
            raise CircleError(_circle(waiting))
        for r in ready:
            done[r.name] = waiting.pop(r.name)
    return Space(ranges=tuple(done.values()))


class CircleError(ValueError):
    """Ranges that read each other."""

    def __init__(self, circle: list[Range]) -> None:
        names = " -> ".join(r.name for r in [*circle, circle[0]])
        super().__init__(f"depends on itself ({names}); give one of them a fixed value or range")
        self.key = circle[0].where


def _circle(waiting: Mapping[str, Range]) -> list[Range]:
    """The ranges of one circle: follows the names that a range reads until one is met again."""
    path = [next(iter(waiting.values()))]
    while True:
        after = waiting[min(needs(path[-1]) & waiting.keys())]
        if after in path:
            return path[path.index(after) :]
        path.append(after)

"""The ranges of a study file and the points inside them.

A range stands where its value stands: `{float: [low, high]}`, `{int: [low, high]}`, `{normal: [mean, sd]}`,
`{lognormal: [mean, sd]}`, `{choice: [...]}`, or `{expr: "..."}` for a value that follows from others. Its name is the
dotted place (`lora.r`).
No sampling here: search/ draws, this room says what may be drawn.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeGuard

from hpotune.config.space import expressions
from hpotune.config.space.normal_range import measured
from hpotune.config.yaml_source import KeyPath, Value

KINDS = ("normal", "lognormal", "float", "int", "choice", "expr")
"""As the file writes them; `int: true` may stand beside the first two, so they are looked for first."""
Confidence = Literal["weak", "medium", "strong"]
CONFIDENCE: tuple[Confidence, ...] = ("weak", "medium", "strong")
_DRAWN = frozenset({"prior", "confidence", "when"})
OPTIONS: dict[str, frozenset[str]] = {
    "float": _DRAWN | {"log", "step"},
    "int": _DRAWN | {"log", "step"},
    "normal": _DRAWN | {"low", "high", "int", "step"},
    "lognormal": _DRAWN | {"low", "high", "int"},
    "choice": _DRAWN | {"ordered"},
    "expr": frozenset({"when"}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """One searched or tied value."""

    where: KeyPath
    kind: Literal["float", "int", "choice", "expr"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    options: tuple[Value, ...] = ()
    text: str = ""
    ordered: bool = False
    """Of a choice: whether neighbours in the list are alike."""
    measure: tuple[float, float] | None = None
    """Mean and standard deviation of a normal distribution over it (of the natural logarithm where it is log)."""
    prior: Value = None
    confidence: Confidence = "weak"
    """How close to `prior` the best value is believed to lie."""
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The dotted place, the name of the Optuna parameter."""
        return dotted(self.where)

    @property
    def corners(self) -> tuple[Value, ...]:
        """The values at which a mistake would show: both ends, or every option."""
        if self.kind == "choice":
            return self.options
        return (int(self.low), int(self.high)) if self.kind == "int" else (self.low, self.high)

    @property
    def labels(self) -> tuple[bool | int | float | str | None, ...]:
        """Options as Optuna stores them: as they are when all are scalars, else every one as JSON text."""
        if all(option is None or isinstance(option, (bool, int, float, str)) for option in self.options):
            return self.options  # type: ignore[return-value]
        return tuple(json.dumps(option) for option in self.options)


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """All ranges of a study, in an order in which each comes after those it depends on."""

    ranges: tuple[Range, ...]
    constraints: tuple[str, ...] = ()
    """Conditions that every point keeps, known before it runs."""

    @property
    def searched(self) -> tuple[Range, ...]:
        """The ranges a sampler draws; expressions follow from them."""
        return tuple(r for r in self.ranges if r.kind != "expr")


def dotted(where: KeyPath) -> str:
    """`("lora", "r")` as `lora.r`."""
    return ".".join(map(str, where))


def range_kind(value: Value) -> str | None:
    """The kind of range a value is, None for an ordinary value."""
    found = [kind for kind in KINDS if isinstance(value, dict) and kind in value]
    return found[0] if found else None


def meant_kind(value: Mapping[str, Value]) -> tuple[str, str] | None:
    """(word, kind) where a mapping looks like a range whose kind is misspelt: `{itn: [0, 9]}`."""
    for word, inner in value.items():
        near = difflib.get_close_matches(str(word), KINDS, n=1, cutoff=0.6)
        if near and isinstance(inner, list):
            return word, near[0]
    return None


def parse_range(value: dict[str, Value], where: KeyPath) -> Range:
    """A range from its YAML value.

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
        raise ValueError(f"{word!r} may not stand beside {kind!r}; needs {rule}")
    when = _conditions(value.get("when", {}))
    if kind == "expr":
        return _expression(value[kind], where, when)
    found = _choice(value, where) if kind == "choice" else _interval(value, where, kind)
    return replace(found, when=when, confidence=_confidence(value))


def _confidence(value: Mapping[str, Value]) -> Confidence:
    found = value.get("confidence", "weak")
    known = next((word for word in CONFIDENCE if word == found), None)
    if known is None:
        raise ValueError(f"confidence: {found!r} needs one of {', '.join(CONFIDENCE)}")
    if "confidence" in value and value.get("prior") is None:
        raise ValueError(f"confidence: {found} says how good a prior is, and there is none; add prior")
    return known


def _conditions(value: Value) -> dict[str, tuple[Value, ...]]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError("when: needs {name: value}, such as {train.optim: sgd}")
    return {key: tuple(wanted) if isinstance(wanted, list) else (wanted,) for key, wanted in value.items()}


def _expression(text: Value, where: KeyPath, when: dict[str, tuple[Value, ...]]) -> Range:
    if not isinstance(text, str):
        raise ValueError(f'expr: {text!r} needs text, such as "2 * lora.r"')
    try:
        expressions.names_in(text)
    except ValueError as error:
        raise ValueError(f"expr: {text!r} {error}") from None
    return Range(where=where, kind="expr", text=text, when=when)


def _choice(value: dict[str, Value], where: KeyPath) -> Range:
    options = value["choice"]
    if not isinstance(options, list) or not options:
        raise ValueError(f"choice: {options!r} needs a list of at least one value")
    inner = next((option for option in options if range_kind(option)), None)
    if inner is not None:
        raise ValueError(
            f"choice: {inner!r} is a range inside a range; write its values out, or a range of its own with `when`"
        )
    written = [json.dumps(option) for option in options]
    twice = next((text for text in written if written.count(text) > 1), None)
    if twice is not None:
        raise ValueError(f"choice: {twice} stands twice; needs different values")
    prior, ordered = value.get("prior"), value.get("ordered", False)
    if prior is not None and prior not in options:
        raise ValueError(f"prior: {prior!r} is none of the choices {options!r}")
    if not isinstance(ordered, bool):
        raise ValueError(f"ordered: {ordered!r} needs true or false")
    return Range(where=where, kind="choice", options=tuple(options), prior=prior, ordered=ordered)


def _interval(value: dict[str, Value], where: KeyPath, kind: str) -> Range:
    found = _normal(value, where, kind) if kind in ("normal", "lognormal") else _uniform(value, where)
    prior, low, high = value.get("prior"), found.low, found.high
    if prior is not None and (not _number(prior) or not low <= prior <= high):
        raise ValueError(f"prior: {prior!r} needs a number from {low:g} to {high:g}")
    if found.kind == "int" and prior is not None and prior != int(prior):
        raise ValueError(f"prior: {prior!r} needs a whole number, as the range is int")
    return replace(found, prior=prior)


def _normal(value: dict[str, Value], where: KeyPath, kind: str) -> Range:
    of = measured(value, kind)
    return Range(
        where=where, kind="int" if of.whole else "float", low=of.low, high=of.high, log=kind == "lognormal",
        step=of.step, measure=(of.mean, of.sd),
    )  # fmt: skip


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
    return Range(where=where, kind=kind, low=low, high=high, log=log, step=step)


def _step(step: Value, kind: str, *, log: bool, width: float) -> float | None:
    if step is None:
        return None
    whole = "whole " if kind == "int" else ""
    if log or not _number(step) or step <= 0 or (kind == "int" and step != int(step)):
        raise ValueError(f"step: {step!r} needs a positive {whole}number, without log: true")
    if step > width:
        raise ValueError(f"step: {step:g} is wider than the range ({width:g}); needs a smaller one")
    return step


def _bounds(value: Value, kind: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{kind}: {value!r} needs two numbers, [low, high]")
    low, high = value
    if not _number(low) or not _number(high):
        raise ValueError(f"{kind}: {value!r} needs two numbers, [low, high]")
    if not abs(low) + abs(high) < float("inf"):
        raise ValueError(f"{kind}: [{low:g}, {high:g}] needs finite numbers")
    if kind == "int" and (low != int(low) or high != int(high)):
        raise ValueError(f"int: {value!r} needs whole numbers; for others write float")
    if not low < high:
        raise ValueError(f"{kind}: [{low:g}, {high:g}] needs low < high; a single value needs no range")
    return low, high


def _number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def ordered(ranges: Iterable[Range]) -> Space:
    """The space of these ranges, each after those its condition or expression reads.

    Raises: CircleError where there is none.
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
        super().__init__(f"reads itself in a circle ({names}); give one of them a value of its own")
        self.where = circle[0].where


def _circle(waiting: Mapping[str, Range]) -> list[Range]:
    """The ranges of one circle, found by following any unread name until one comes again."""
    path = [next(iter(waiting.values()))]
    while True:
        after = waiting[min(needs(path[-1]) & waiting.keys())]
        if after in path:
            return path[path.index(after) :]
        path.append(after)


def needs(r: Range) -> set[str]:
    """The names a range reads."""
    return set(r.when) | (set(expressions.names_in(r.text)) if r.kind == "expr" else set())


def active(r: Range, values: Mapping[str, Value]) -> bool:
    """Whether the range exists beside these values, by name."""
    return all(name in values and values[name] in wanted for name, wanted in r.when.items())


def put_point(template: dict[str, Value], space: Space, drawn: Mapping[str, Value]) -> dict[str, Value]:
    """The template's values with a point put in: drawn values at their places, expressions computed.

    Ranges that are inactive at this point are left out.
    Raises: ValueError for an expression that cannot be computed here; it begins with the range's name.
    """
    values = without(template, [r.where for r in space.ranges])
    names = {r.name for r in space.ranges}
    known = {name: value for name, value in leaves(values) if name not in names}
    for r in space.ranges:
        if not active(r, known):
            continue
        try:
            value = expressions.evaluate(r.text, known) if r.kind == "expr" else drawn[r.name]
        except ValueError as error:
            raise ValueError(f"{r.name}: expr {r.text!r} {error}") from None
        known[r.name] = value
        _put(values, r.where, value)
    return values


def leaves(value: Value, where: KeyPath = ()) -> Iterable[tuple[str, Value]]:
    """Every scalar and list of a tree by its dotted name."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*where, key))
    else:
        yield dotted(where), value
        if isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, (dict, list)):
                    yield from leaves(item, (*where, index))


def _parent(values: dict[str, Value], where: KeyPath) -> dict[str, Value] | list[Value]:
    node: Value = values
    for key in where[:-1]:
        node = node[key]  # type: ignore[index]
    assert isinstance(node, (dict, list)), "the place of a range lies in the template"
    return node


def without(values: dict[str, Value], places: Iterable[KeyPath]) -> dict[str, Value]:
    """A copy of the values with these keys left out; items of lists stay, for their number is their name."""
    copy = json.loads(json.dumps(values))
    assert isinstance(copy, dict), "a mapping gives a mapping"
    for where in places:
        if where[0] in copy:
            _remove(copy, where)
    return copy


def _remove(values: dict[str, Value], where: KeyPath) -> None:
    parent = _parent(values, where)
    if isinstance(parent, dict):
        parent.pop(str(where[-1]), None)


def _put(values: dict[str, Value], where: KeyPath, value: Value) -> None:
    parent, key = _parent(values, where), where[-1]
    if isinstance(parent, dict):
        parent[str(key)] = value
    else:
        assert isinstance(key, int), "an item of a list has a number"
        parent[key] = value

"""The names of a study's `params`: how a command and the environment call each value, and names that cannot work.

A value inside a mapping has a dotted name: `{optimizer: {lr: 0.1}}` is `optimizer.lr`, as in `when` and `expr`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping

from hpotune.config.space.range_parsing import range_kind
from hpotune.config.yaml_source import KeyPath, Mistake, Value

ENVIRONMENT = "HPOTUNE_PARAM_"


def values_by_name(params: Value, prefix: str = "") -> Iterator[tuple[str, Value]]:
    """Every value under `params` by its dotted name, mappings and lists before what they hold."""
    inner: Mapping[str, Value] = {}
    if isinstance(params, dict):
        inner = params
    elif isinstance(params, list):
        inner = {str(index): item for index, item in enumerate(params)}
    for key, value in inner.items():
        yield f"{prefix}{key}", value
        yield from values_by_name(value, f"{prefix}{key}.")


def environment_name(name: str) -> str:
    """The environment variable of a value: `optimizer.lr` is HPOTUNE_PARAM_OPTIMIZER_LR."""
    return ENVIRONMENT + re.sub(r"[^A-Za-z0-9_]", "_", name).upper()


def environment(params: Mapping[str, Value]) -> dict[str, str]:
    """The environment variables of all texts and numbers under `params`."""
    named = values_by_name(dict(params))
    return {
        environment_name(name): str(value) for name, value in named if isinstance(value, (str, int, float))
    }


def name_mistakes(params: Value, *, by_command: bool) -> Iterator[Mistake]:
    """An error for each name that cannot work, whatever the function or command is. `params`: ranges included."""
    variables: dict[str, str] = {}
    for where, name, value in _keys(params):
        key: KeyPath = ("params", *where)
        if not where[-1] or not str(where[-1]).isprintable():
            yield key, f"params: {where[-1]!r} cannot be a name; needs at least one character, all printable"
        elif by_command and set("{}") & set(name):
            yield key, f"params: {name!r} has a brace, so a command cannot name it; rename it"
        elif by_command and (other := variables.setdefault(environment_name(name), name)) != name:
            variable = environment_name(name)
            yield key, f"params: {other!r} and {name!r} are both ${variable} to the command; rename one"
        yield from _number_mistakes(key, name, value)


def _keys(params: Value, where: KeyPath = ()) -> Iterator[tuple[KeyPath, str, Value]]:
    """Every key under `params`: path, dotted name, and its value; a range is one value."""
    if not isinstance(params, dict) or range_kind(params) is not None:
        return
    for key, value in params.items():
        yield (*where, key), ".".join(map(str, (*where, key))), value
        yield from _keys(value, (*where, key))


def _number_mistakes(key: KeyPath, name: str, value: Value) -> Iterator[Mistake]:
    """An error for a number that JSON, in which a trial gets its values, does not have."""
    if isinstance(value, dict) and range_kind(value) is None:
        return  # its own keys are checked
    numbers = [one for _, one in values_by_name([value]) if isinstance(one, float)]
    if any(not math.isfinite(number) for number in numbers):
        rule = 'a trial gets finite numbers only; write it as text, such as "inf"'
        yield key, f"params.{name}: {json.dumps(value)} has a number that is not finite; {rule}"

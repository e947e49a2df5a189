"""Conditions on measured numbers, such as `peak_memory_gb <= 38 and hellaswag/acc_norm > 0.4`. Never runs other code.

The language is that of config/space/expressions.py. A `/` without spaces belongs to a name (TASK/METRIC); a division
has spaces around it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from hpotune.config.space import expressions

_SCORE = re.compile(r"(?<![\w.\"'])[A-Za-z_][\w.-]*/[A-Za-z_][\w.@]*(?:,[A-Za-z_][\w-]*)?")
"""TASK/METRIC or TASK/METRIC,FILTER."""
_STANDS_FOR = "hpotune_score_"


def names_of(text: str) -> frozenset[str]:
    """The names that a condition reads.

    Raises: ValueError if the text is not a condition.
    """
    plain, scores = _without_slashes(text)
    try:
        names = expressions.names_in(plain)
    except ValueError as error:
        raise ValueError(_with_slashes(str(error), scores)) from None
    if not expressions.is_condition(plain):
        raise ValueError("is not a condition; needs a comparison, such as peak_memory_gb <= 38")
    if not names:
        raise ValueError("reads no measured number; needs one, such as peak_memory_gb <= 38")
    return frozenset(scores.get(name, name) for name in names)


def holds(text: str, values: Mapping[str, float]) -> bool:
    """Whether a condition holds. `values`: at least the names that it reads.

    Raises: ValueError where its arithmetic fails.
    """
    plain, scores = _without_slashes(text)
    known = {name: values[score] for name, score in scores.items() if score in values}
    try:
        return bool(expressions.evaluate(plain, {**values, **known}))
    except ValueError as error:
        raise ValueError(_with_slashes(str(error), scores)) from None


@lru_cache(maxsize=1024)
def _without_slashes(text: str) -> tuple[str, Mapping[str, str]]:
    """The text with another name for each TASK/METRIC, and the names that they stand for."""
    scores = list(dict.fromkeys(_SCORE.findall(text)))
    names = {score: f"{_STANDS_FOR}{index}" for index, score in enumerate(scores)}
    plain = _SCORE.sub(lambda found: names[found.group()], text)
    return plain, {name: score for score, name in names.items()}


def _with_slashes(text: str, scores: Mapping[str, str]) -> str:
    for name, score in sorted(scores.items(), reverse=True):
        text = text.replace(name, score)
    return text

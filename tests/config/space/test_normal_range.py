"""Normal and lognormal ranges: where they end, what they hold, and what is wrong with others."""

from __future__ import annotations

import math

import pytest

from hpotune.config.space.range_parsing import parse_range
from hpotune.config.space.ranges import Range


def ranged(value: dict) -> Range:
    return parse_range(value, ("params", "x"))


def test_normal_range_has_three_sd():
    r = ranged({"normal": [2, 0.5]})
    assert (r.kind, r.low, r.high, r.log, r.measure) == ("float", 0.5, 3.5, False, (2.0, 0.5))


def test_lognormal_uses_natural_logarithm():
    r = ranged({"lognormal": [math.log(2e-4), 1]})
    assert (r.kind, r.log, r.measure) == ("float", True, (math.log(2e-4), 1.0))
    assert (r.low, r.high) == (pytest.approx(2e-4 / math.e**3), pytest.approx(2e-4 * math.e**3))


@pytest.mark.parametrize(
    ("value", "kind", "low", "high", "step"),
    [
        ({"normal": [0, 1], "low": 0}, "float", 0, 3, None),
        ({"normal": [0, 1], "high": 9.5}, "float", -3, 9.5, None),
        ({"normal": [16, 4], "int": True}, "int", 4, 28, None),
        ({"normal": [16, 4.1], "int": True}, "int", 4, 28, None),
        ({"normal": [0.55, 0.1], "step": 0.1}, "float", 0.3, 0.8, 0.1),
        ({"normal": [16, 4], "int": True, "step": 8}, "int", 8, 24, 8),
        ({"normal": [16, 4], "int": True, "step": 5, "low": 6}, "int", 6, 26, 5),
        ({"lognormal": [0, 1], "int": True}, "int", 1, 20, None),
        ({"lognormal": [0, 1], "low": 0.5, "high": 2}, "float", 0.5, 2, None),
    ],
)
def test_ends_whole_numbers_and_steps(value, kind, low, high, step):
    r = ranged(value)
    assert (r.kind, r.low, r.high, r.step) == (kind, pytest.approx(low), pytest.approx(high), step)
    assert all(isinstance(corner, int) for corner in r.corners) == (kind == "int")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"normal": [1]}, "normal: [1] needs two numbers, [mean, sd]"),
        ({"normal": 3}, "normal: 3 needs two numbers"),
        ({"normal": [0, "x"]}, "needs two finite numbers"),
        ({"normal": [0, 0]}, "normal: [0, 0] needs an sd above 0"),
        ({"lognormal": [2000, 1]}, "needs mean and sd of the natural logarithm, such as [-8.5, 1]"),
        ({"normal": [0, 1], "int": 3}, "int: 3 needs true or false beside normal"),
        ({"normal": [0, 1], "low": 3}, "low: 3 needs to be below 3, which is 3 sd from the mean"),
        ({"normal": [0, 1], "low": -9, "high": -3}, "high: -3 needs to be above -3"),
        ({"normal": [0, 1], "low": 1, "high": -1}, "low: 1 needs to be below high: -1"),
        ({"normal": [0, 1], "low": "a"}, "low: 'a' needs a finite number"),
        ({"lognormal": [0, 1], "low": 0}, "low: 0 needs a number above 0"),
        ({"normal": [0.5, 0.1], "int": True}, "has fewer than two values from 1 to 0"),
        ({"normal": [0, 1], "step": -1}, "step: -1 needs a positive number"),
        ({"normal": [0, 9], "int": True, "step": 1.5}, "step: 1.5 needs a positive whole number"),
        ({"lognormal": [0, 1], "step": 1}, "'step' is not allowed beside 'lognormal'"),
        ({"normal": [0, 1], "log": True}, "'log' is not allowed beside 'normal'"),
        (
            {"normal": [0, 1], "float": [0, 1]},
            "'float' is not allowed beside 'normal'; needs one of float, int, normal",
        ),
        ({"normal": [0, 1], "prior": 4}, "prior: 4 needs a number from -3 to 3"),
        ({"normal": [9, 1], "int": True, "prior": 8.5}, "prior: 8.5 needs a whole number"),
        (
            {"float": [0, 1], "confidence": "weak"},
            "confidence: weak is the confidence in a prior, and none is given",
        ),
        ({"float": [0, 1], "prior": 0.5, "confidence": "sure"}, "needs one of weak, medium, strong"),
        ({"choice": [1, 2], "ordered": "yes"}, "ordered: 'yes' needs true or false"),
        ({"float": [0, 1], "ordered": True}, "'ordered' is not allowed beside 'float'"),
    ],
)
def test_a_wrong_range_names_its_rule(value, says):
    with pytest.raises(ValueError, match=r".") as raised:
        ranged(value)
    assert says in str(raised.value)


def test_confidence_defaults_to_weak():
    assert ranged({"float": [0, 1], "prior": 0.5, "confidence": "strong"}).confidence == "strong"
    assert ranged({"float": [0, 1], "prior": 0.5}).confidence == "weak"
    assert [ranged({"choice": [1, 2], "ordered": flag}).ordered for flag in (True, False)] == [True, False]

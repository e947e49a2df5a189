"""Arithmetic over other values, and nothing beyond it."""

from __future__ import annotations

import math

import pytest

from hpotune.config.space.expressions import evaluate, is_condition, names_in

VALUES = {
    "lora.r": 8,
    "a": 3,
    "b": 0.5,
    "s": "sgd",
    "l": [1],
    "long": "9" * 5000,
    "huge": 10**300,
    "nan": math.nan,
    "inf": math.inf,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 * lora.r", 16), ("lora.r / 2", 4.0), ("lora.r // 3", 2), ("-a + +a", 0), ("a ** 2 % 5", 4),
        ("max(a, lora.r)", 8), ("min(1, 2, b)", 0.5), ("round(2.5)", 2), ("int(b * 7)", 3), ("abs(-a)", 3),
        ("sqrt(16)", 4.0), ("log2(lora.r)", 3.0), ("log10(1000)", pytest.approx(3)), ("float(a)", 3.0),
        ("1 if s == 'sgd' else 2", 1), ("1 if a > lora.r else 2", 2), ("a", 3),
        ("1 < a < 5", True), ("1 < a < 2", False), ("a < 2 or lora.r == 8", True), ("a < 2 and absent", False),
        ("not a < 2", True), ("a > 2 and not s == 'adam'", True), ("a > 2 or absent", True),
    ],
)  # fmt: skip
def test_arithmetic_gives_what_python_gives(text, value):
    assert evaluate(text, VALUES) == value


def test_a_condition_says_yes_or_no():
    assert [is_condition(text) for text in ("a < b", "not a", "a and b", "a + b", "-a", "a")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_whole_numbers_stay_whole():
    assert isinstance(evaluate("2 * lora.r", VALUES), int)


def test_names_exclude_functions():
    assert names_in("max(2 * lora.r, train.x.y) if a else b") == {"lora.r", "train.x.y", "a", "b"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("__import__('os').system('ls')", "calls"), ("open('x')", "calls open('x')"), ("lora.r()", "calls lora.r()"),
        ("max(a, key=b)", "calls max(a, key=b)"), ("[a]", "holds '[a]'"), ("{a}", "holds"), ("lambda: 1", "holds"),
        ("[x for x in l]", "holds"), ("f'{a}'", "holds"),
        ("a and ~b", "holds"), ("a in b", "holds"), ("a < b is c", "holds"), ("(a := 1)", "holds"),
        ("l[0]", "holds"),
        ("1j", "holds"), ("a + 1j", "holds"), ("b'x' == a", "holds"), ("1e999", "holds"),
        ("None", "holds"), ("...", "holds"), ("\0", "is not an"),
        ("9" * 5000, "has 5000 characters"), ("1" * 1999, "holds"), ("0x" + "f" * 1900, "holds"),
        (" + ".join("a" * 400), "operations inside of each other"), ("-" * 1900 + "a", "operations inside"),
        ("(" * 900 + "a" + ")" * 900, "is not an expression"), ("not " * 300 + "a", "operations inside of each other"),
        ("a" + "**2" * 120, "operations inside of each other"), ("max(" * 150 + "a" + ")" * 150, "operations inside"),
        (".".join("a" * 200), "operations inside"), ("1 " + "< a " * 400, "has more than 300 terms"),
        ("2 *", "is not an expression"), ("", "is not an expression"), ("a = 1", "is not an expression"),
    ],
)  # fmt: skip
def test_unsupported_expression_is_refused(text, says):
    with pytest.raises(ValueError, match=r".") as raised:
        names_in(text)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("round(1, -1000000000)", "rounds to -1000000000 digits; needs at most 308"),
        ("round(1.5, 10 ** 9)", "rounds to 1000000000 digits"),
        ("((((10 ** 64) ** 64) ** 64) ** 64) ** 64", "gives no finite real number"),
        ("(-8) ** 0.5", "gives no finite real number"), ("1e308 * 10", "gives no finite real number"),
        ("(1e308 * 10) * 0", "gives no finite real number"),
        ("10 ** 64 * 10 ** 64 * 10 ** 64 * 10 ** 64 * 10 ** 64", "gives no"),
        ("float('nan')", "gives no finite real number"), ("float('inf') > a", "gives no"),
        ("int('9' )** 64 ** 2", "exponent"),
        ("int(long)", "cannot be computed: int of 5000 characters"), ("-s", "computes with 'sgd'"),
        ("max(s, s)", "gives no"),
        ("huge * huge", "gives no finite real number"), ("nan + 1", "gives no finite real number"), ("inf", "gives no"),
        ("sqrt(-huge)", "cannot be computed"), ("huge ** b * 1e300", "gives no"), ("abs(l)", "cannot be computed"),
        ("1 / (a - 3)", "cannot be computed: division by zero"), ("sqrt(-1)", "cannot be computed: sqrt(-1)"),
        ("2 ** 2 ** 20", "has an exponent above 64"), ("absent", "reads 'absent', which has no value here"),
        ("2 * s", "computes with 'sgd', which is not a number"), ("l * 9", "computes with [1]"),
        ("1 < s < 5", "cannot be computed"), ("not absent", "has no value"), ("1 < a and absent", "has no value"),
        ("round(a, s)", "cannot be computed"), ("s < a", "cannot be computed"),
    ],
)  # fmt: skip
def test_failed_arithmetic_is_an_error(text, says):
    with pytest.raises(ValueError, match=r".") as raised:
        evaluate(text, VALUES)
    assert says in str(raised.value)

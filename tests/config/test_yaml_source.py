"""Reading YAML with lines, and writing it back."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hpotune.config.yaml_source import Source, parse_source, plain, read_source, write_yaml
from hpotune.errors import StudyFileError

PATH = Path("study.yaml")


def parse(text: str) -> Source:
    return parse_source(text, path=PATH)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E5", 1e5), ("-.5", -0.5), ("1.", 1.0), ("+3", 3), ("007", 7),
        ("0o17", 15), ("0x1F", 31), (".inf", math.inf), ("-.inf", -math.inf),
        ("true", True), ("FALSE", False), ("~", None), ("null", None), ("", None),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("n", "n"),
        ("12:00:00", "12:00:00"), ("2026-12-24", "2026-12-24"), ("1_000", "1_000"), ("0b11", "0b11"),
        ("1.10.0", "1.10.0"), ("e5", "e5"), ("<<", "<<"), ("=", "="),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_core_schema(text, value):
    assert plain(text) == value
    assert type(plain(text)) is type(value)


def test_nan_is_a_number():
    assert math.isnan(plain(".NaN"))


@pytest.mark.parametrize("text", ["'8'", '"8"', "|-\n  8", ">-\n  8"])
def test_a_quoted_scalar_stays_text(text):
    assert parse(f"a: {text}\n").values == {"a": "8"}


def test_keys_and_items_have_lines():
    source = parse("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n")
    assert source.lines == {
        ("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("a", "c", 0): 4, ("a", "c", 1): 5, ("a", "c", 1, "d"): 5,
    }  # fmt: skip


def test_missing_key_uses_enclosing_location():
    source = parse("a: 1\nb:\n  c: 1\n")
    assert source.location(("b", "c", "x", 0)) == "study.yaml:3"
    assert source.location(("b", "x")) == "study.yaml:2"
    assert source.location(("x",)) == "study.yaml:1"


def test_duplicate_keys_name_both_lines():
    with pytest.raises(StudyFileError) as raised:
        parse("a:\n  b: 1\n  b: 2\nc: 1\nc: 2\n")
    assert [line.partition(";")[0] for line in raised.value.mistakes] == [
        "study.yaml:3: a.b is given twice (first on line 2)",
        "study.yaml:5: c is given twice (first on line 4)",
    ]


def test_own_key_overrides_merged_key():
    source = parse("a: &a {x: 1, y: 2}\nb:\n  x: 3\n  <<: *a\n")
    assert source.values["b"] == {"x": 3, "y": 2}
    assert source.line(("b", "x")) == 3


def test_first_merged_mapping_is_used():
    source = parse("a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc:\n  <<: [*a, *b]\n")
    assert source.values["c"] == {"x": 1, "y": 2}


def test_alias_has_value_of_anchor():
    assert parse("a: &a [1, 2]\nb: *a\n").values == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a:\n\tb: 1\n", "study.yaml:2: a tab"),
        ("a: [1\n", "study.yaml:2: not YAML"),
        ("a: *b\n", "study.yaml:1: not YAML: found undefined alias"),
        ("a: &a [*a]\n", "study.yaml:1: a.0 contains itself"),
        ("a: {<<: 3}\n", "study.yaml:1: << in a needs a mapping"),
        ("? [a]\n: 1\n", "study.yaml:1: a key of the file is a list or mapping"),
        ("a: !own 3\n", "study.yaml:1: a has the tag !own"),
        ("", "study.yaml:1: has no `key: value` lines"),
        ("- a\n", "study.yaml:1: has no `key: value` lines"),
    ],
)
def test_unsupported_yaml_is_refused(text, says):
    with pytest.raises(StudyFileError) as raised:
        parse(text)
    assert len(raised.value.mistakes) == 1
    assert says in str(raised.value)


def test_byte_order_mark_is_ignored(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\n")
    assert read_source(path).values == {"name": "a"}


FLOATS = [
    *(mantissa * 10.0**exponent for mantissa in (1, -1, 1.5, -1.5, 9.99) for exponent in range(-12, 13)),
    0.0, 0.1, 1 / 3, 5e-324, 1.7976931348623157e308, math.inf, -math.inf,
]  # fmt: skip


@pytest.mark.parametrize("value", FLOATS)
def test_float_round_trips(value):
    back = parse(write_yaml({"a": value, "b": [value]})).values
    assert back == {"a": value, "b": [value]}
    assert isinstance(back["a"], float)


@pytest.mark.parametrize(
    "value",
    [
        "1e-5", "8", "0x1F", "0o7", "no", "true", "null", "", "~", " a ", "a: b", "# a", "- a", "12:00:00",
        "2026-12-24", "{x}", "[x]", "*a", "&a", "!a", "%a", "@a", "two\nlines\n", "tab\there", "ü€😀",
        "'",
        '"', "1_000", ".inf", "x" * 300,
    ],
)  # fmt: skip
def test_text_round_trips(value):
    assert parse(write_yaml({"a": value, "b": {"c": [value]}})).values == {"a": value, "b": {"c": [value]}}


def test_keys_come_back_in_their_order():
    values = {"b": None, "a": True, "c": {"z": 1, "y": [1, "1", 1.0, False]}}
    back = parse(write_yaml(values)).values
    assert back == values
    assert list(back) == ["b", "a", "c"]

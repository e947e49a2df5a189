"""Reading YAML with lines, and writing it back."""

from __future__ import annotations

import math
import os
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


ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join(f'*a{i - 1}' for _ in range(10))}]\n" for i in range(1, 10)
)
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join(f'*a{i - 1}' for _ in range(10))}]}}\n" for i in range(1, 10)
)
LADDER = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 900))
LONG_TEXT = "a: &a '" + "x" * 500_000 + "'\nb: [*a, *a, *a, *a, *a]\n"
LIMITS = {
    "aliases that multiply": (ALIASES, "study.yaml:1: a4."),
    "merges that multiply": (
        MERGES,
        "with its *aliases written out the file has more than 20,000 values and keys",
    ),
    "aliases that nest": (LADDER, "with its *aliases written out the file has more than 50 levels"),
    "a text that multiplies": (LONG_TEXT, "b.3: with its *aliases written out the file is too large"),
    "lists in lists": (
        "a: " + "[" * 900 + "]" * 900,
        "study.yaml:1: more than 50 levels of mappings and lists",
    ),
    "mappings in mappings": (
        "".join(" " * i + "a:\n" for i in range(900)),
        "study.yaml:51: more than 50 levels",
    ),
    "many values": (
        "a:\n" + "- 1\n" * 30_000,
        "study.yaml:20000: more than 20,000 values and keys; put data into",
    ),
    "many keys": ("".join(f"k{i}: 1\n" for i in range(30_000)), "more than 20,000 values and keys"),
    "a whole number of 5000 digits": (
        "a: " + "9" * 5000,
        "a=9999999999999999999999999999999999999999 is beyond",
    ),
    "a negative one": ("a: -" + "9" * 400, "is beyond the range of double precision"),
    "hexadecimal digits": ("a: 0x" + "f" * 5000, "is beyond the range of double precision"),
    "octal digits": ("a: 0o" + "7" * 5000, "is beyond the range of double precision"),
    "a large exponent": (
        "a: [1, -1e400]",
        "study.yaml:1: a.1=-1e400 is beyond the range of double precision",
    ),
    "a small exponent": ("a: 1.5e-400", "a=1.5e-400 is beyond the range of double precision"),
    "NUL": (
        'a: "x\\0"',
        "study.yaml:1: a contains the control character U+0000, which a study file cannot have",
    ),
    "escape": ('a:\n  b: "\\e[2J"', "study.yaml:2: a.b contains the control character U+001B"),
    "bell": ('a: "\\x07"', "the control character U+0007"),
    "DEL": ('a: "\\x7f"', "the control character U+007F"),
    "C1": ('a: "\\x9b31m"', "the control character U+009B"),
    "a surrogate": ('a: "\\ud800"', "a contains half of a character (a surrogate), U+D800"),
    "no character": ('a: "\\uffff"', "a contains what is no character, U+FFFF"),
    "reversed writing": ("command: 'rm \u202e x'", "a character that reverses the writing, U+202E"),
    "an isolate": ("a: [x, 'b\u2066c']", "a.1 contains a character that reverses the writing, U+2066"),
    "a key with a line break": (
        '"a\\nb": 1',
        "a key of the file has the character U+000A, which cannot be printed",
    ),
    "a key with a zero width": ("a:\n  l\u200bora: 1", "study.yaml:2: a key of a has the character U+200B"),
    "a surrogate in a key": ('"\\udc80": 1', "a key of the file has the character U+DC80"),
    "a long key": ("x" * 300 + ": 1", "a key of the file has 300 characters; needs at most 200"),
}


@pytest.mark.parametrize(("text", "says"), LIMITS.values(), ids=LIMITS.keys())
def test_limits_of_a_file(text, says):
    with pytest.raises(StudyFileError) as raised:
        parse(text)
    assert says in str(raised.value)
    assert "\n" not in raised.value.mistakes[0]
    assert len(str(raised.value)) < 1000


def test_usual_anchors_are_allowed():
    values = parse("a: &a {x: 1}\nb: [*a, *a]\nc: {<<: *a, y: 2}\n").values
    assert values == {"a": {"x": 1}, "b": [{"x": 1}, {"x": 1}], "c": {"x": 1, "y": 2}}


ROW = "a: &a {" + ", ".join(f"k{i}: 1" for i in range(80)) + "}\n"  # 161 values and keys


def test_accepted_aliases_can_be_written_out():
    values = parse(ROW + "b: [" + "*a, " * 120 + "]\n").values
    assert parse(write_yaml(values)).values == values


@pytest.mark.parametrize("aliases", [124, 240])
def test_keys_of_aliases_count(aliases):
    with pytest.raises(StudyFileError, match="more than 20,000 values and keys"):
        parse(ROW + "b: [" + "*a, " * aliases + "]\n")


def test_written_file_may_have_defaults_too():
    text = "a:\n" + "- 1\n" * 25_000
    assert len(parse_source(text, path=Path("resolved.yaml")).values["a"]) == 25_000


@pytest.mark.parametrize("key", ["params: {a: @}", "data: {prompt: @}", "score: {system: @}"])
def test_a_model_may_read_any_direction(key):
    text = "'\u2067\u05d0\u2069'"
    assert parse(key.replace("@", text)).values


@pytest.mark.parametrize(
    "text", ["1e308", "-1e-300", "5e-324", "9" * 300, "0.0", "-0.0", "0e999", ".inf", ".nan"]
)
def test_numbers_of_double_precision_are_read(text):
    assert isinstance(parse(f"a: {text}").values["a"], (int, float))


def test_errors_are_bounded():
    text = "".join(f"k{i}: !x {i}\n" for i in range(5000))
    with pytest.raises(StudyFileError) as raised:
        parse(text)
    assert len(raised.value.mistakes) == 101
    assert raised.value.mistakes[-1] == "and 4900 more; correct these first"


def test_messages_are_one_short_line():
    source = parse("a: 1\n")
    (message,) = source.messages({("a",): "x" * 100_000 + "\n\x1b[2J\ud800"})
    assert len(message) < 2100
    assert message.endswith("<U+000A><U+001B>[2J<U+D800>")


def test_fifo_is_no_study_file(tmp_path):
    os.mkfifo(tmp_path / "study.yaml")
    with pytest.raises(StudyFileError, match="it is a FIFO"):
        read_source(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    ("target", "says"),
    [("/dev/zero", "it is a device"), ("/tmp", "it is a folder"), ("/proc/self/mem", "cannot be read")],
)
def test_link_to_no_regular_file(tmp_path, target, says):
    (tmp_path / "study.yaml").symlink_to(target)
    with pytest.raises(StudyFileError) as raised:
        read_source(tmp_path / "study.yaml")
    assert says in str(raised.value)


def test_circle_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "study.yaml")
    (tmp_path / "study.yaml").symlink_to(tmp_path / "a")
    with pytest.raises(StudyFileError, match="Too many levels of symbolic links"):
        read_source(tmp_path / "study.yaml")


def test_large_file_is_not_read(tmp_path):
    with (tmp_path / "study.yaml").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(StudyFileError, match="it has more than 1 MiB"):
        read_source(tmp_path / "study.yaml")


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

"""JSON files: one object a line or one list, strings letter by letter, and what is refused."""

from __future__ import annotations

import json

import pytest

from hpotune.config.rows import json_rows as module
from hpotune.config.rows.json_rows import json_rows
from hpotune.config.rows.text_encoding import DataFileError


@pytest.fixture
def file(tmp_path):
    def write(text, name="rows.jsonl"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('{"a": "007"}\n{"a": 7}\n', [{"a": "007"}, {"a": 7}]),
        ('\n\n{"a": 1}\n\n{"b": [1, {"c": null}]}', [{"a": 1}, {"b": [1, {"c": None}]}]),
        ('\ufeff{"a": 1}\n', [{"a": 1}]),
        ('{"a": "ü"}\r\n{"a": "\u2028"}\r\n', [{"a": "ü"}, {"a": "\u2028"}]),
        ('{"a": "ü"}\n'.encode("utf-16"), [{"a": "ü"}]),
        ('[{"a": 1},\n {"a": 2}\n]\n', [{"a": 1}, {"a": 2}]),
        (' [ ] ', []),
        ('["x", "y"]', [{"text": "x"}, {"text": "y"}]),
        ('{"a": NaN, "b": {"c": NaN}}', [{"a": None, "b": {"c": None}}]),
        ('{"a": "2024-01-31", "b": "\\ud83d\\ude00"}', [{"a": "2024-01-31", "b": "😀"}]),
        ('{"a": 12345678901234567890123, "b": 1e17}', [{"a": 12345678901234567890123, "b": 1e17}]),
    ],
    ids=range(11),
)  # fmt: skip
def test_rows_of_lines_and_lists(text, rows, file):
    assert list(json_rows(file(text))) == rows


def test_lists_are_read_in_chunks(file, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    rows = [{"text": "é" * n, "n": [n]} for n in range(30)]
    text = json.dumps(rows, indent=1, ensure_ascii=False)
    assert list(json_rows(file(text))) == rows
    with pytest.raises(DataFileError, match=r"line 182 \(row 30\): Expecting ',' or ']' after a row"):
        list(json_rows(file(text[:-1])))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1}\n{"a": 2,}\n', "line 2 (row 1): Illegal trailing comma before end of object"),
        ('{"a": 1}\n\n{"a": }\n', "line 3 (row 1): Expecting value (character 7); correct that line"),
        ('{"a": 1} {"a": 2}\n', "line 1 (row 0): Extra data (character 10)"),
        ('{\n "a": 1\n}\n', "line 1 (row 0): the object does not end in this line; put each row in one line"),
        ('{"a": {"b": 1},\n "c": {"b": 2}}\n', "line 1 (row 0): the object does not end in this line"),
        ('{"a": 1}\n"x y"\n3\n', "line 3 (row 2): '3' is not an object {...}"),
        ('[{"a": 1}\n {"a": 2}]', "line 2 (row 1): Expecting ',' or ']' after a row"),
        ('[{"a": 1},\n {"a": }]', "line 2 (row 1): Expecting value"),
        ('[{"a": 1}] x', "line 1: text stands behind the end of the list"),
        ('{"a": 1, "a": 2}\n', "line 1 (row 0): the key 'a' stands twice in one object"),
        ('{"a": "\\ud83d"}\n', "line 1 (row 0): \\ud83d is half of a character (a surrogate)"),
        ('{"a": 1' + "0" * 5000 + "}", "line 1 (row 0): Exceeds the limit"),
        ("[" * 100_000, "line 1 (row 0): "),
        ("", "is empty; needs one object in each line, or a list of objects"),
        ('{"a": "für"}\n'.encode("latin-1"), "line 1: is not UTF-8 (byte 0xFC); if it is Latin-1, convert it"),
    ],
)  # fmt: skip
def test_wrong_files_name_line_and_reason(text, reason, file):
    path = file(text)
    with pytest.raises(DataFileError) as error:
        list(json_rows(path))
    assert str(error.value).startswith(str(path))
    if "trailing comma" not in reason:  # Python before 3.13 says it in other words
        assert reason in str(error.value)
    assert reason.partition(": ")[0] in str(error.value)


def test_rows_under_a_key(file):
    path = file('{"version": 1, "data": [{"a": 1}]}')
    assert list(json_rows(path, field="data")) == [{"a": 1}]
    with pytest.raises(DataFileError, match="no list of rows under the key 'rows'"):
        list(json_rows(path, field="rows"))


COLUMNS = '{"q": ["a", "b"], "a": ["c", "d"]}'


@pytest.mark.parametrize(
    "text",
    [COLUMNS, '{"text": ["a", "b"]}', '{"q": {"0": "a", "1": "b"}, "a": {"0": "c", "1": "d"}}'],
)
def test_json_of_columns_is_refused(text, tmp_path):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(
        DataFileError, match=r"rows.json: holds one object of columns .*; write a list of records"
    ):
        list(json_rows(tmp_path / "rows.json"))


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("rows.jsonl", COLUMNS, 1),
        ("rows.json", f"{COLUMNS}\n{COLUMNS}\n", 2),
        ("rows.json", '{"messages": [{"role": "user", "content": "a"}]}', 1),
        ("rows.json", '{"q": ["a"], "a": "b"}', 1),
    ],
)
def test_rows_may_hold_lists(name, text, count, tmp_path):
    (tmp_path / name).write_text(text)
    assert len(list(json_rows(tmp_path / name))) == count

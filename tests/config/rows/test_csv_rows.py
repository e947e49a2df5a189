"""CSV files: cells as they are written, delimiters, quotes, and what is refused."""

from __future__ import annotations

import pytest

from hpotune.config.rows.csv_rows import csv_columns, csv_delimiter, csv_rows
from hpotune.config.rows.text_encoding import DataFileError


@pytest.fixture
def file(tmp_path):
    def write(text, name="rows.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


@pytest.mark.parametrize(
    "cell",
    ["007", "1.50", "None", "NA", "null", "NaN", "true", "True", "1e5", "2024-01-31", " padded ", "", "3", "-0", "inf"],
)  # fmt: skip
def test_cells_are_text_as_written(cell, file):
    rows = list(csv_rows(file(f"input,output\nx,{cell}\ny,4\n")))
    assert rows == [{"input": "x", "output": cell}, {"input": "y", "output": "4"}]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a,b\n1,2\n", [{"a": "1", "b": "2"}]),
        ("a;b\n1,5;2\n", [{"a": "1,5", "b": "2"}]),
        ("a\tb\n1\t2\n", [{"a": "1", "b": "2"}]),
        ("a|b\n1|2\n", [{"a": "1", "b": "2"}]),
        ('"x,y";b\n1;2\n', [{"x,y": "1", "b": "2"}]),
        ("price, USD;b\n1;2\n", [{"price, USD": "1", "b": "2"}]),
        ("a\nsome text\n", [{"a": "some text"}]),
        ('a\n""\n\nx\n', [{"a": ""}, {"a": "x"}]),
        ("\n  \na,b\n1,2\n\n", [{"a": "1", "b": "2"}]),
        ("a,b\r\n1,2\r\n", [{"a": "1", "b": "2"}]),
        ("a,b\r1,2\r", [{"a": "1", "b": "2"}]),
        ('a,b\n"x\r\ny",2\n', [{"a": "x\r\ny", "b": "2"}]),
        ('a,b\n"say ""hi""",5" pipe\n', [{"a": 'say "hi"', "b": '5" pipe'}]),
        ("a,b,c\n1,2\n", [{"a": "1", "b": "2", "c": None}]),
        (",a\n0,x\n1,y\n", [{"a": "x"}, {"a": "y"}]),
        ("a,b,\n1,2,\n", [{"a": "1", "b": "2"}]),
        ("a,b\n", []),
        ("\ufeffa,b\n1,2\n", [{"a": "1", "b": "2"}]),
        ("a,b\nü,2\n".encode("utf-16"), [{"a": "ü", "b": "2"}]),
        ("Queue Name,a.b,{x}\n1,2,3\n", [{"Queue Name": "1", "a.b": "2", "{x}": "3"}]),
        (f"a\n{'x' * 200_000}\n", [{"a": "x" * 200_000}]),
    ],
    ids=range(21),
)
def test_rows_of_every_dialect(text, rows, file):
    assert list(csv_rows(file(text))) == rows


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('a,b\n1,2\n"x,3\n4,5\n', 'line 3: a cell opens with a quote (") that nothing closes'),
        ('a,b\n"x"y,3\n', 'line 2: text stands behind the quote (") that closes a cell'),
        ("a,b\n1,2\n3,4,5\n", "line 3 (row 1): 3 cells for 2 columns; put a cell that holds a comma in quotes"),
        ("text\nhello, world\n", "line 2 (row 0): 2 cells for 1 columns"),
        ("a,b,a\n1,2,3\n", "line 1: the column 'a' stands twice; rename one"),
        ("a,b,\n1,2,3\n", "line 2 (row 0): text in a column without a name"),
        ("a,b;c\n1,2;3\n", "can be split by a comma or a semicolon; put its names in quotes"),
        ("", "is empty; its first line needs the names of the columns"),
        ("\n \n", "is empty"),
        ("a,b\n1,2\nfür,3\n".encode("latin-1"), "line 3: is not UTF-8 (byte 0xFC); if it is Latin-1, convert it: "
         "iconv -f latin1 -t utf-8 rows.csv > utf8-rows.csv"),
        ("a,b\n1,2\n".encode("utf-16-le"), "is UTF-16 without a byte order mark; convert it: iconv -f utf-16le"),
        ("a,b\n1,2\n".encode("utf-16")[:-1], "is not UTF-16, which its byte order mark says"),
    ],
)  # fmt: skip
def test_wrong_files_name_line_and_reason(text, reason, file):
    with pytest.raises(DataFileError) as error:
        list(csv_rows(file(text)))
    assert str(error.value).startswith(str(file(text)))
    assert reason in str(error.value)


def test_tsv_is_split_by_tabs(file):
    path = file("a,b\tc\n1,5\t2\n", "rows.tsv")
    assert csv_delimiter(path) == "\t"
    assert list(csv_rows(path)) == [{"a,b": "1,5", "c": "2"}]


def test_columns_are_known_without_rows(file):
    assert csv_columns(file("input,output\n")) == ["input", "output"]


def test_given_names_replace_the_header(file):
    assert list(csv_rows(file("1,2\n3,4\n"), names=["a", "b"])) == [
        {"a": "1", "b": "2"},
        {"a": "3", "b": "4"},
    ]


@pytest.mark.parametrize("row", ['x, "red"', ' "x",red', '"x,y",\t"red"', 'x, "red" or so'])
def test_blank_before_quote_is_named(row, tmp_path):
    (tmp_path / "rows.csv").write_text(f"input,output\n{row}\n")
    with pytest.raises(
        DataFileError, match="line 2: a blank stands before the quote of .*; remove the blank"
    ):
        list(csv_rows(tmp_path / "rows.csv"))


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        ('x," ""red"""', ["x", ' "red"']),
        ('"a, ""b""",  red', ['a, "b"', "  red"]),
        ('" ""a"", ""b""",c', [' "a", "b"', "c"]),
    ],
)
def test_quoted_blanks_and_quotes_are_text(row, cells, tmp_path):
    (tmp_path / "rows.csv").write_text(f"input,output\n{row}\n")
    assert [list(found.values()) for found in csv_rows(tmp_path / "rows.csv")] == [cells]

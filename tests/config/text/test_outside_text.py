"""Text from outside in each form: what a reader would act on is shown, and a cell of CSV reads back."""

from __future__ import annotations

import csv
import io
import sys
import unicodedata

import pytest

from hpotune.config.text.outside_text import (
    console_text,
    csv_text,
    has_hidden,
    html_text,
    markdown_text,
    read_csv_text,
    without_colours,
)

HARMLESS = "naïve 漢字 عربي 👍 a\tb\nc [x] :y: C:\\dir"
CELLS = [
    "=cmd()", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "'=1", '"=1', "\uff1d1", "a;=1", "a;\"+1", "a\n=1",
    "\x1b[2J", "\u202ex", '"', '""', '"quoted"', "", "plain", "-", "a-b", "1e-5", "[1]", '{"a": 1}', "\\u003d", "café",
]  # fmt: skip


def test_every_format_character_is_hidden() -> None:
    """By the general categories of this Python's Unicode."""
    found = [
        code
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp") and chr(code) not in "\n\t"
    ]
    assert [hex(code) for code in found if not has_hidden(chr(code))] == []


def test_console_shows_what_it_hides() -> None:
    assert console_text(HARMLESS) == HARMLESS
    assert console_text("a\x1b[2J\u202eb\r\n") == "a<U+001B>[2J<U+202E>b\n"
    assert console_text("a\tb\nc", one_line=True) == "a<U+0009>b<U+000A>c"
    assert without_colours("\x1b[1;31mred\x1b[0m \x1b[2K") == "red "


def test_markdown_and_html_hold_no_markup() -> None:
    assert markdown_text("lora_r _x_ |\n <b> `c` [l](u) &amp; \x1b") == (
        r"lora_r \_x\_ \| \<b\> \`c\` \[l\](u) \&amp; \<U+001B\>"
    )
    assert html_text('<b title="x">\u202e') == "&lt;b title=&quot;x&quot;&gt;&lt;U+202E&gt;"


@pytest.mark.parametrize("text", CELLS)
def test_csv_cell_reads_back(text: str) -> None:
    cell = csv_text(text)
    assert read_csv_text(cell) == text
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(["1", cell])
    for separator in ",;":
        (row,) = csv.reader(io.StringIO(line.getvalue()), delimiter=separator)
        assert not [one for one in row if one.lstrip(" '\"")[:1] in set("=+-@\uff1d") and one[:1] != '"']
    assert not has_hidden(line.getvalue())

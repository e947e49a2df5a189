"""Each fault of docs/hardening.md names a test, and each test that the page names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "hardening.md"
ROWS = [line for line in PAGE.read_text().splitlines() if re.match(r"\| ([A-Z]\d+)? *\|(?! fault)", line)]


def test_page_has_every_fault() -> None:
    numbers = {row.split("|")[1].strip() for row in ROWS}
    absent = {"S12", "S13", "S21", "S24"}  # these numbers were never given
    last = {"F": 16, "S": 26, "D": 11, "N": 9}
    wanted = {f"{letter}{number}" for letter in last for number in range(1, last[letter] + 1)}
    assert wanted - absent <= numbers


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip() + row.split("|")[2][:30])
def test_named_tests_exist(row: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
    assert named
    for file, name in named:
        tree = ast.parse((TESTS / file).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (
            file,
            name,
        )

"""Every argument of tune() and of the parameter classes changes what docs/katib.md says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.katib_search_rows import SEARCH
from tests.fixtures.katib_tables import CLASSES, TUNE


@pytest.mark.parametrize("row", TUNE)
def test_argument_has_its_effect(row: str, tmp_path: Path) -> None:
    TUNE[row](tmp_path)


@pytest.mark.parametrize("row", CLASSES)
def test_field_has_its_effect(row: str, tmp_path: Path) -> None:
    CLASSES[row](tmp_path)


@pytest.mark.parametrize("row", SEARCH)
def test_range_has_its_effect(row: str, tmp_path: Path) -> None:
    SEARCH[row](tmp_path)

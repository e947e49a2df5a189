"""docs/katib.md has a row for every argument of the interface, each with a test that exists."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import hpotune
from hpotune import search
from hpotune.api.katib import parameter_classes
from tests.fixtures.katib_search_rows import SEARCH
from tests.fixtures.katib_tables import CLASSES, TUNE
from tests.fixtures.katib_train_rows import TRAIN

PAGE = (Path(__file__).parents[2] / "docs" / "katib.md").read_text()


def rows(section: str) -> dict[str, str]:
    """Argument -> its test, of the table of a section."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `([\w.]+)` \| [^|]+ \| [^|]+ \| `([\w.]+)` \|$", text, re.MULTILINE)
    assert len(dict(found)) == len(found)
    return dict(found)


def arguments(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_tune_has_all_rows() -> None:
    assert list(rows("tune()")) == arguments(hpotune.tune)
    assert set(rows("tune()").values()) == set(TUNE)


def test_train_has_all_rows() -> None:
    assert list(rows("train()")) == arguments(hpotune.train)
    assert set(rows("train()").values()) == set(TRAIN)


def test_classes_have_all_rows() -> None:
    classes = [one for one in vars(parameter_classes).values() if dataclasses.is_dataclass(one)]
    fields = [f"{one.__name__}.{field.name}" for one in classes for field in dataclasses.fields(one)]
    assert len(classes) == 5
    assert list(rows("Parameter classes")) == fields
    assert set(rows("Parameter classes").values()) == set(CLASSES)


def test_search_has_all_rows() -> None:
    names = ("double", "int", "categorical")
    made = [f"{name}.{argument}" for name in names for argument in arguments(getattr(search, name))]
    assert list(rows("Search API")) == made
    assert set(rows("Search API").values()) == set(SEARCH)

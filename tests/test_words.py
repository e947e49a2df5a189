"""Words that were given up (docs/glossary.md) stand in no name, message, docstring, comment or page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
HISTORY = {"CHANGELOG.md", "glossary.md", "log.md"}  # they say what the words were
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "configs/*.yaml", "slurm_templates/*")
    for path in ROOT.glob(pattern)
    if path.name not in HISTORY
)
QUOTING = {"test_words.py", "make-quickstart-data"}  # the words stand in their data
PROGRAMS = sorted(
    path
    for pattern in (
        "hpotune/**/*.py",
        "hpotune/templates/*.yaml",
        "scripts/*",
        "scripts/**/*.py",
        "tests/**/*.py",
    )
    for path in ROOT.glob(pattern)
    if path.is_file() and "data" not in path.parts and path.name not in QUOTING
)
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def banned_words() -> frozenset[str]:
    """The words of the glossary's last table."""
    rows = GLOSSARY.read_text(encoding="utf-8").partition("## Words that were given up")[2].splitlines()
    found = [re.findall(r"`([^`]+)`", row.split("|")[1]) for row in rows if row.startswith("| `")]
    return frozenset(word for row in found for word in row)


def words_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and word, lower case; identifiers are split at underscores and capitals. Quoted output of other programs is
    marked `# words: ignore` on its line."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if "words: ignore" not in line:
            for word in WORD.findall(line):
                yield number, word.lower()


@pytest.mark.parametrize("path", [*PROGRAMS, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_given_up_words_are_gone(path: Path) -> None:
    banned = banned_words()
    assert [f"{path.relative_to(ROOT)}:{n}: {word}" for n, word in words_of(path) if word in banned] == []

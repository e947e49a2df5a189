"""Every link of the pages leads to a file and a heading that exist, as the forge resolves them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)")
FENCE = re.compile(r"^\s*(```+|~~~+).*?^\s*\1", re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings: lower case, without punctuation, spaces as hyphens, numbered where repeated."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for title in re.findall(r"^#+ +(.*)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        found.add(slug if slug not in found else f"{slug}-1")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target, anchor in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path = page if not target else (page.parent / target).resolve()
        assert path.exists(), f"{page.name}: {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page.name}: {target}#{anchor}"


def test_reference_links_are_defined() -> None:
    text = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    table, _, definitions = text.partition("\n[K]: ")
    defined = {"K", *re.findall(r"^\[([^\]]+)\]: https://", definitions, re.MULTILINE)}
    used = set(re.findall(r"\[([^\]]+)\](?!\()", table))
    assert used == defined
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    assert len(rows) > 25
    for row in rows[1:]:  # each cell about another tool names its source, but where nothing was found
        cells = [cell.strip() for cell in row.split("|")[3:-1]]
        assert len(cells) == 7
        assert [cell for cell in cells if cell != "?" and not re.search(r"\[[^\]]+\]", cell)] == []

"""What mkdocs does with the pages of docs/ beyond its own rules: the same files read well on the forge and here.

- A link out of docs/ (../README.md, ../configs/quickstart.yaml) leads to a page of that file inside the site: the site
  needs no network and knows no repository's address.
- A list or table that follows a line of text without an empty line is one, as on the forge.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs"
INSIDE = "project"
"""Folder of the site for files outside docs/."""
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]\n]*)\]\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")
WIDE = {"comparison.md"}
"""Pages whose tables need the room of the list of headings."""
ITEM = re.compile(r"([-*]|\d+\.) ")
LANGUAGES = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".py": "python",
    ".sh": "bash",
    ".sbatch": "bash",
    ".toml": "toml",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of docs/lab/ to the menu of courses; their titles are their headings."""
    folder = ROOT / DOCS / "lab"
    pages = sorted(path.relative_to(ROOT / DOCS).as_posix() for path in folder.rglob("*.md"))
    pages.sort(key=lambda path: (not path.endswith("lab/index.md"), "/solutions/" in path))
    if config.nav and pages:
        first: list[object] = next(iter(config.nav[0].values()))
        first.append({"Handouts": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file outside docs/ that a page links to, and those that such pages link to."""
    open_ = [
        path
        for file in files.documentation_pages()
        for path in outside(file.content_string, f"{DOCS}/{file.src_uri}")
    ]
    added = set[str]()
    while open_:
        path = open_.pop()
        if path in added or not (ROOT / path).exists():
            continue
        added.add(path)
        text = page_of(path)
        files.append(File.generated(config, inside(path), content=text))
        open_ += outside(text, path)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The text with the links of the site, and with the empty lines that Python-Markdown needs."""
    source = repository_path(page.file.src_uri)
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    return "\n".join(separated(relinked(markdown, source, page.file.src_uri).split("\n")))


def repository_path(page: str) -> str:
    """The file that a page was made of, relative to the repository."""
    if page.startswith(f"{INSIDE}/"):
        name = page.removeprefix(f"{INSIDE}/")
        return name if (ROOT / name).exists() else name.removesuffix(".md")
    return f"{DOCS}/{page}"


def target_of(link: re.Match[str], source: str) -> str | None:
    """The path of the repository that a link of a file leads to; None for an address, or an anchor of the same page."""
    target = link["target"]
    if not target or re.match(r"[a-z]+:|//", target):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def outside(text: str, source: str) -> list[str]:
    """Paths outside docs/ that a text links to."""
    found = (target_of(link, source) for line in text_lines(text) for link in LINK.finditer(line))
    return [path for path in found if path is not None and not path.startswith((f"{DOCS}/", ".."))]


def relinked(text: str, source: str, page: str) -> str:
    """Links of a file of the repository as those of its page."""

    def replaced(link: re.Match[str]) -> str:
        path = target_of(link, source)
        if path is None or not (ROOT / path).exists():
            return link[0]
        to = path.removeprefix(f"{DOCS}/") if path.startswith(f"{DOCS}/") else inside(path)
        return (
            f"[{link['text']}]({posixpath.relpath(to, posixpath.dirname(page) or '.')}{link['anchor'] or ''})"
        )

    lines = text.split("\n")
    plain = set(text_numbers(lines))
    return "\n".join(
        LINK.sub(replaced, line) if number in plain else line for number, line in enumerate(lines)
    )


def inside(path: str) -> str:
    """The page of a file outside docs/."""
    return f"{INSIDE}/{path if path.endswith('.md') else f'{path}.md'}"


def page_of(path: str) -> str:
    """A Markdown file as it is, another file as a block of code, a folder as a list."""
    file = ROOT / path
    if file.is_dir():
        names = sorted(one.name for one in file.iterdir() if one.is_file())
        base = posixpath.basename(path)
        return f"# {path}\n\n" + "".join(f"- [{name}]({base}/{name})\n" for name in names)
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return text
    return f"# {path}\n\n````{LANGUAGES.get(file.suffix, 'text')}\n{text}````\n"


def text_numbers(lines: list[str]) -> Iterator[int]:
    """Numbers of the lines that stand in no block of code."""
    fence = ""
    for number, line in enumerate(lines):
        mark = re.match(r"\s*(`{3,}|~{3,})", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = ""
        elif not fence:
            yield number


def text_lines(text: str) -> list[str]:
    lines = text.split("\n")
    return [lines[number] for number in text_numbers(lines)]


def separated(lines: list[str]) -> Iterator[str]:
    """An empty line before a list or table that follows text; code is left as it is."""
    plain = set(text_numbers(lines))
    before = ""
    for number, line in enumerate(lines):
        starts_table = line.startswith("|") and not before.startswith("|")
        starts_list = bool(ITEM.match(line)) and not ITEM.match(before) and not before.startswith(" ")
        if number in plain and before.strip() and (starts_table or starts_list):
            yield ""
        yield line
        before = line

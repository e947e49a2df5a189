"""The site is built strictly, documents every verb and key, and is read in Chromium at two widths.

HPOTUNE_PICTURES=FOLDER keeps the screenshots of PAGES, to be looked at.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from hpotune.cli import app
from hpotune.config.schema.study_config import StudyConfig
from tests.fixtures.chromium import Page, started_browser

pytest.importorskip(
    "material", reason="needs mkdocs-material: pip install -c scripts/constraints.txt '.[docs]'"
)

ROOT = Path(__file__).parents[2]
PAGES = ("index", "comparison")
WIDTHS = (1280, 390)
ASKED = os.environ.get("HPOTUNE_SITE_PAGES", "").split() or PAGES
"""Pages that are looked at; HPOTUNE_SITE_PAGES names others, for a look by hand."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    env = os.environ | {"PYTHON": sys.executable}
    command = [str(ROOT / "scripts" / "make-site"), "-d", str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_broken_links_are_errors(tmp_path: Path) -> None:
    """With the same settings and script, on a folder of one page."""
    shutil.copytree(ROOT / "docs" / "site", tmp_path / "docs" / "site")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "make-site", tmp_path / "scripts")
    settings = tmp_path / "docs" / "site" / "mkdocs.yml"
    settings.write_text(settings.read_text(encoding="utf-8").partition("\nnav:")[0], encoding="utf-8")
    (tmp_path / "docs" / "index.md").write_text(
        "# A\n\n[1](no.md) [2](#no) [3](../no.yaml)\n", encoding="utf-8"
    )
    command, env = [str(tmp_path / "scripts" / "make-site")], os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    for link in ("'no.md'", "'#no'", "'../no.yaml'"):
        assert link in done.stdout + done.stderr


def text(site: Path, page: str) -> str:
    """What a reader sees of a page's content."""
    whole = (site / f"{page}.html").read_text(encoding="utf-8")
    inner = whole[whole.index("<article") : whole.index("</article>")]
    return html.unescape(re.sub(r"<[^>]*>", "", inner))


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The sections of a study file that can be reached from one, itself first."""
    yield model
    for field in model.model_fields.values():
        for one in classes(field.annotation):
            if one is not model:
                yield from sections(one)


def classes(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from classes(inner)


def test_every_verb_is_documented(site: Path) -> None:
    command: Any = typer.main.get_command(app)
    page = (site / "verbs.html").read_text(encoding="utf-8")
    shown = text(site, "verbs")
    for name, verb in command.commands.items():
        if not verb.hidden:
            assert f'id="{name}"' in page
            options = [option for option in verb.params if option.param_type_name == "option" and option.help]
            assert [option.opts[0] for option in options if option.opts[0] not in shown] == [], name


def test_every_key_is_documented(site: Path) -> None:
    page = (site / "study_file.html").read_text(encoding="utf-8")
    keys = {key for section in sections(StudyConfig) for key in section.model_fields}
    assert len(keys) > 130
    assert {key for key in keys if f"<code>{key}</code>" not in page} == set()


def test_every_message_is_on_the_site(site: Path) -> None:
    shown = "".join(text(site, "messages").split())
    source = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
    lines = re.findall(r"^- `+ ?(.*?) ?`+$", source, re.MULTILINE)
    assert len(lines) > 900
    assert [line for line in lines if "".join(line.split()) not in shown] == []


def test_files_of_the_repository_are_pages(site: Path) -> None:
    assert "scripts/quickstart" in text(site, "project/index")
    assert "SmolLM2" in text(site, "project/configs/quickstart.yaml")
    links = re.findall(r'href="([^"#]*)', (site / "first_minutes.html").read_text(encoding="utf-8"))
    assert "project/configs/quickstart.yaml.html" in links


def test_lists_need_no_empty_line(site: Path) -> None:
    """search.md has a list right below a line of text, planning.md a numbered one."""
    assert "<li><strong>A cliff and a plateau.</strong>" in (site / "search.html").read_text(encoding="utf-8")
    assert "<ol>\n<li><strong>learned</strong>" in (site / "planning.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with started_browser() as page:
        yield page


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", ASKED)
def test_pages_fit_and_ask_no_host(site: Path, browser: Page, page: str, width: int) -> None:
    browser.open(site / f"{page}.html", width=width, scheme="light" if width > 600 else "dark")
    scroll, client = browser.value(
        "[document.scrollingElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert scroll <= client
    assert [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert browser.messages == []
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", ground)[:3])) < 80) == (width <= 600), ground
    if folder := os.environ.get("HPOTUNE_PICTURES"):
        browser.picture(Path(folder) / f"{page}-{width}.png")


def test_search_needs_no_server(site: Path, browser: Page) -> None:
    """The page is opened from a folder, where browsers start no web worker."""
    browser.open(site / "project" / "index.html")
    browser.value(
        "document.querySelector('[data-md-toggle=search]').click()"
    )  # what a click on the field does
    browser.value(
        "(() => { const field = document.querySelector('.md-search__input'); field.value = 'preempted';"
        "field.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true}));"
        "field.dispatchEvent(new Event('input', {bubbles: true})) })()"
    )
    browser.wait_for("document.querySelectorAll('.md-search-result__item').length > 2")
    found = browser.value("[...document.querySelectorAll('.md-search-result__link')].map(one => one.href)")
    assert any("/cluster_guide.html" in link for link in found), found
    assert [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert browser.messages == []

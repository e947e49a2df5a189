"""The page of a class in a real Chromium at 1280 and 390 pixels. HPOTUNE_PICTURES=FOLDER keeps the screenshots."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from hpotune.lab.class_overview import ClassOverview, class_overview
from hpotune.lab.overview_page import overview_page
from tests.fixtures.chromium import OVERFLOW, Page, faint_texts, started_browser
from tests.lab.conftest import MARKUP


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with started_browser() as page:
        yield page


@pytest.fixture(scope="module")
def page_file(class_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    now = datetime.now()
    file = tmp_path_factory.mktemp("page") / "class.html"
    file.write_text(overview_page(class_overview([class_folder], now=now), now=now), encoding="utf-8")
    return file


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_and_is_read(browser: Page, page_file: Path, width: int, scheme: str) -> None:
    browser.open(page_file, width=width, scheme=scheme)
    browser.value("document.getElementById('s4').open = true")
    if folder := os.environ.get("HPOTUNE_PICTURES"):
        browser.picture(Path(folder) / f"class-{width}-{scheme}.png", whole=True)
    wide, seen = browser.value(OVERFLOW)
    assert wide <= seen
    assert faint_texts(browser) == []
    assert browser.requests == [page_file.as_uri()]
    assert browser.messages == []
    assert browser.value("document.querySelectorAll('#class tbody tr').length") == 30


def test_markup_of_students_stays_text(browser: Page, page_file: Path) -> None:
    browser.open(page_file)
    assert browser.value("document.querySelectorAll('img').length") == 0
    assert MARKUP in browser.value("document.getElementById('class').textContent")


def test_column_sorts_and_name_leads_on(browser: Page, page_file: Path) -> None:
    browser.open(page_file)
    first = "document.querySelector('#class tbody tr').cells"
    click = (
        "[...document.querySelectorAll('#class thead button')].find(b => b.textContent === 'state').click()"
    )
    browser.value(click)
    assert browser.value(f"{first}[2].textContent") == "done"
    browser.value(click)
    assert browser.value(f"{first}[2].textContent") == "unreadable"
    target = browser.value(f"{first}[0].querySelector('a').getAttribute('href')")
    student = browser.value(f"{first}[0].textContent")
    assert browser.value(f"document.querySelector('{target} summary b').textContent").startswith(student)
    browser.value(f"{first}[0].querySelector('a').click()")
    browser.wait_for(f"document.querySelector('{target}').open")


def test_empty_class_has_a_page() -> None:
    page = overview_page(ClassOverview(made="2026-11-30", rows=()), now=datetime.now())
    assert "0 of 0 studies" in page

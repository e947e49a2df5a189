"""The page in a real Chromium: 1280 and 390 pixels, light, dark and print; requests, contrast, text alternatives.

HPOTUNE_PICTURES=FOLDER keeps the screenshots, to be looked at.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from hpotune.reporting.page.page_html import html_page, vega_bundle
from hpotune.reporting.views.study_report import StudyReport
from tests.fixtures.chromium import OVERFLOW, Page, faint_texts
from tests.fixtures.report_studies import HOSTILE, OWN, own_rows, study_of

ANSWERS_END = (
    "Math.max(...[...document.querySelectorAll('.answer')].map(one => one.getBoundingClientRect().bottom))"
)
DRAWN = "[...document.querySelectorAll('.drawing')].map(one => [one.id, one.dataset.interactive || ''])"


def keep(browser: Page, name: str, *, whole: bool = False) -> None:
    if folder := os.environ.get("HPOTUNE_PICTURES"):
        browser.picture(Path(folder) / f"{name}.png", whole=whole)


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_first_screen_holds_five_answers(browser: Page, page_file: Path, width: int, height: int) -> None:
    browser.open(page_file, width=width, height=height)
    keep(browser, f"first-{width}")
    assert browser.value("document.querySelectorAll('.answer').length") == 5
    assert browser.value(ANSWERS_END) <= height
    wide, seen = browser.value(OVERFLOW)
    assert wide <= seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_becomes_interactive(browser: Page, page_file: Path, width: int, scheme: str) -> None:
    browser.open(page_file, width=width, scheme=scheme)
    for name, _ in browser.value(DRAWN):
        browser.value(f"document.getElementById('{name}').scrollIntoView()")
        browser.wait_for(f"document.getElementById('{name}').dataset.interactive === 'yes'")
    browser.value("scrollTo(0, 0)")
    keep(browser, f"whole-{width}-{scheme}", whole=True)
    assert faint_texts(browser) == []
    wide, seen = browser.value(OVERFLOW)
    assert wide <= seen
    assert browser.requests == [page_file.as_uri()]
    assert browser.messages == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_read_without_scripts(browser: Page, page_file: Path, scheme: str) -> None:
    browser.open(page_file, width=390, scheme=scheme, scripts=False)
    keep(browser, f"still-{scheme}", whole=True)
    assert (
        browser.value("document.querySelectorAll('.drawing > svg.chart').length")
        == len(browser.value(DRAWN))
        > 10
    )
    assert faint_texts(browser) == []
    wide, seen = browser.value(OVERFLOW)
    assert wide <= seen
    assert browser.requests == [page_file.as_uri()]


def test_print_is_dark_on_white(browser: Page, page_file: Path) -> None:
    browser.open(page_file, scheme="dark", medium="print")
    keep(browser, "print", whole=True)
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert faint_texts(browser) == []
    assert browser.pdf().startswith(b"%PDF")


def test_hostile_message_stays_text(browser: Page, page_file: Path) -> None:
    browser.open(page_file)
    browser.wait_for("document.documentElement.classList.contains('scripted')")
    assert browser.value("document.title") == "smollm2-alpaca: report"
    assert browser.value("document.querySelectorAll('img').length") == 0
    assert HOSTILE in browser.value("document.getElementById('trust').textContent")


def test_policy_stops_markup_not_escaped(browser: Page, page_file: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        image = f"<img src='http://127.0.0.1:{server.getsockname()[1]}/x' onerror=\"document.title='in'\">"
        worse = f"<main><script>document.title='in'</script>{image}"
        text = page_file.read_text(encoding="utf-8").replace("<main>", worse)
        (tmp_path / "worse.html").write_text(text, encoding="utf-8")
        browser.open(tmp_path / "worse.html")
        browser.wait_for("document.documentElement.classList.contains('scripted')")
        assert browser.value("[document.images.length, document.title]") == [1, "smollm2-alpaca: report"]
        with pytest.raises(BlockingIOError):
            server.accept()


def test_figures_have_text_alternatives(browser: Page, page_file: Path) -> None:
    browser.open(page_file)
    labels = browser.value(
        "[...document.querySelectorAll('.drawing')].map(one => one.getAttribute('aria-label'))"
    )
    assert all(len(label) > 30 for label in labels)
    assert browser.value("document.querySelectorAll('.drawing:not([role=img])').length") == 0


def test_table_sorts_and_hides_columns(browser: Page, page_file: Path) -> None:
    browser.open(page_file)
    browser.wait_for("document.querySelector('#trial-table thead button') !== null")
    browser.value("document.querySelectorAll('#trial-table thead button')[2].click()")
    column = "[...document.querySelectorAll('#trial-table tbody tr')].map(row => parseFloat(row.cells[2].textContent))"
    scores = [score for score in browser.value(column) if score is not None]
    assert len(scores) == 28
    assert scores == sorted(scores)
    browser.value("document.querySelector('#columns input').click()")
    assert browser.value("document.querySelector('#trial-table').rows[1].cells[1].style.display") == "none"


def test_hovering_shows_a_trial(browser: Page, page_file: Path) -> None:
    browser.open(page_file, height=2000)
    browser.wait_for("document.getElementById('score-over-trials-0').dataset.interactive === 'yes'")
    point = (
        "document.querySelector('#score-over-trials-0 .mark-symbol.role-mark path').getBoundingClientRect()"
    )
    x, y = browser.value(f"[{point}.x + {point}.width / 2, {point}.y + {point}.height / 2]")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    browser.wait_for("document.getElementById('vg-tooltip-element') !== null")
    assert "learning_rate=" in browser.value("document.getElementById('vg-tooltip-element').textContent")


def test_hostile_names_stay_text(browser: Page, tmp_path: Path) -> None:
    rows = own_rows(0.3, 0.2, None)
    space = {"x": {"float": [0.0, 1.0]}, "y": {"choice": [HOSTILE, "<b>bold</b>", "{{ 7 * 7 }}"]}}
    rows = [replace(row, params={**row.params, "params.y": HOSTILE}) for row in rows]
    report = study_of(tmp_path, rows, **{**OWN, "params": space}).report()
    (tmp_path / "report.html").write_text(html_page(report), encoding="utf-8")
    browser.open(tmp_path / "report.html")
    for name, _ in browser.value(DRAWN):
        browser.value(f"document.getElementById('{name}').scrollIntoView()")
        browser.wait_for(f"document.getElementById('{name}').dataset.interactive === 'yes'")
    assert browser.value("document.title") == "own: report"
    assert browser.value("document.querySelectorAll('img, b b').length") == 0
    assert browser.messages == []


def test_page_names_no_other_address(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8").replace(vega_bundle(), "")
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", text))
    assert {
        a for a in addresses if not a.startswith(("http://www.w3.org/", "https://vega.github.io/schema/"))
    } == set()


def test_page_is_small(tuned: StudyReport, page_file: Path) -> None:
    assert len(tuned.trials) > 25
    assert page_file.stat().st_size < 1_500_000

"""A fine-tuning study with a hostile message as report, page and file, made once; and one browser for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpotune.reporting.page.page_html import html_page
from hpotune.reporting.views.study_report import StudyReport
from tests.fixtures.chromium import Page, started_browser
from tests.fixtures.report_studies import HOSTILE, fine_tuning


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> StudyReport:
    return fine_tuning(tmp_path_factory.mktemp("tuned"), message=HOSTILE).report()


@pytest.fixture(scope="session")
def page_file(tuned: StudyReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(html_page(tuned), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def browser() -> Iterator[Page]:
    with started_browser() as page:
        yield page

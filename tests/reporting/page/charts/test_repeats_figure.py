"""The figure of the repeats, and what page and answers say of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpotune.reporting.page.answers import answers
from hpotune.reporting.page.charts.look import PAGE
from hpotune.reporting.page.charts.repeats_figure import repeats
from hpotune.reporting.page.page_html import html_page
from hpotune.reporting.views.study_report import StudyReport
from tests.fixtures.repeats_results import repeats_result


@pytest.fixture
def repeated(tuned: StudyReport) -> StudyReport:
    """The report of a study whose best trial was chosen by repeats."""
    best = tuned.best.best
    assert best is not None
    return replace(tuned, best=replace(tuned.best, repeats=repeats_result(1, best.number), tied=()))


def test_each_seed_is_a_dot(repeated: StudyReport) -> None:
    (panel,) = repeats(repeated, PAGE).panels
    intervals, search, seeds, means = (one["data"]["values"] for one in panel.spec["layer"])
    assert [row["v"] for row in seeds] == [0.59, 0.6, 0.61, 0.61, 0.62, 0.63]
    assert [row["v"] for row in search] == [0.66, 0.64]
    assert [(row["lo"], row["hi"]) for row in intervals] == [
        (pytest.approx(0.55), pytest.approx(0.64)),
        (pytest.approx(0.57), pytest.approx(0.66)),
    ]
    assert [row["s"] for row in means] == ["may be the best", "best"]
    assert "mean 0.62" in panel.alt


def test_study_without_repeats_says_so(tuned: StudyReport) -> None:
    figure = repeats(tuned, PAGE)
    assert (figure.panels, figure.why_not) == ((), "the study has no repeats (`search.repeats`)")


def test_page_shows_both_errors(repeated: StudyReport) -> None:
    page = html_page(repeated)
    assert '<section id="repeats">' in page
    assert "64 % is due to the items" in page
    certain = answers(repeated)[2].details
    assert "No other of the 2 finalists may be the best one." in certain
    assert any(text.startswith("Expected with further seeds on further items") for text in certain)

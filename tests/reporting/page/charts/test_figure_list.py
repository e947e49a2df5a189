"""Every figure of several kinds of studies: a valid Vega-Lite specification by altair's schema, or a reason."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from hpotune.errors import StudyFileError
from hpotune.reporting.page.charts.figure import file_spec
from hpotune.reporting.page.charts.figure_list import FIGURES, SHOWS, draw_of
from hpotune.reporting.page.charts.look import PAGE, PAPER
from hpotune.reporting.page.drawing import figure_file
from hpotune.reporting.page.page_html import html_page
from hpotune.reporting.views.study_report import StudyReport
from tests.fixtures.report_rows import running
from tests.fixtures.report_studies import OWN, at_rungs, fine_tuning, own_rows, study_of

TWO = {"objective": [{"metric": "loss"}, {"metric": "seconds_per_step", "direction": "minimize"}]}
ASHA = {"pruner": "asha"}


def two_objectives() -> list[Any]:
    from dataclasses import replace

    rows = own_rows(0.3, 0.2, 0.25, 0.9)
    costs = (1.0, 3.0, 2.0, 4.0)
    return [
        replace(row, values=(*row.values, cost), stderrs=(None, None))
        for row, cost in zip(rows, costs, strict=True)
    ]


def study(kind: str, home: Path) -> StudyReport:
    if kind == "tuned":
        return fine_tuning(home, trials=24).report()
    rows: dict[str, tuple[list[Any], dict[str, Any]]] = {
        "empty": ([], {}),
        "one": (own_rows(0.5), {}),
        "running": ([running(1)], {}),
        "all failed": (own_rows(None, None), {}),
        "equal": (own_rows(*[0.5] * 22), {}),
        "diverged": (own_rows(*[0.1 + 0.001 * i for i in range(20)], 1e9, 1e300), {}),
        "two objectives": (two_objectives(), {"score": TWO}),
        "rungs": (
            [at_rungs(1, 0.5), at_rungs(2, 0.4, 0.3), at_rungs(3, 0.3, 0.2, 0.1, state="finished")],
            {"search": ASHA},
        ),
    }
    found, sections = rows[kind]
    return study_of(home, found, **{**OWN, **sections}).report()


KINDS = ("tuned", "empty", "one", "running", "all failed", "equal", "diverged", "two objectives", "rungs")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StudyReport]:
    return {kind: study(kind, tmp_path_factory.mktemp("study")) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_valid_vega_lite(reports: dict[str, StudyReport], kind: str) -> None:
    altair = pytest.importorskip("altair")
    drawn = [draw(reports[kind], PAPER) for draw in FIGURES.values()]
    for figure in drawn:
        assert bool(figure.panels) != bool(figure.why_not), figure.name
        if figure.panels:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                altair.Chart.from_dict(file_spec(figure)).to_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_page_of_every_kind_of_study(reports: dict[str, StudyReport], kind: str) -> None:
    page = html_page(reports[kind])
    assert page.count('<div class="answer') == 5
    assert "NaN" not in page.partition("<main>")[2].partition('id="specs"')[0]


def test_figures_of_each_kind(reports: dict[str, StudyReport]) -> None:
    def names(kind: str) -> set[str]:
        return {name for name, draw in FIGURES.items() if draw(reports[kind], PAGE).panels}

    assert names("tuned") == set(FIGURES) - {"pareto-front", "hypervolume", "rungs", "sealed-test", "repeats"}
    assert names("empty") == names("running") - {"hours"} == names("all failed") == set()
    assert names("two objectives") >= {"pareto-front", "hypervolume", "validation-against-test"}
    assert "rungs" in names("rungs")
    assert "importance" not in names("equal")


def test_diverged_trials_leave_the_axis(reports: dict[str, StudyReport]) -> None:
    figure = FIGURES["score-over-trials"](reports["diverged"], PAGE)
    values = figure.panels[0].spec["layer"][-1]["data"]["values"]
    assert max(row["y"] for row in values) < 1
    assert [row["n"] for row in values if row["s"] == "off the axis"] == [20, 21]
    assert "2 trials lie beyond the axis" in figure.caption


def test_every_figure_has_a_description() -> None:
    assert list(SHOWS) == list(FIGURES)


def test_unknown_name_lists_the_figures() -> None:
    with pytest.raises(StudyFileError, match="did you mean 'importance'.*score-over-trials"):
        draw_of("importanse")


@pytest.mark.parametrize(("ending", "start"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_figure_files_have_their_format(reports: dict[str, StudyReport], ending: str, start: bytes) -> None:
    figure = FIGURES["score-by-parameter"](reports["tuned"], PAPER)
    found = figure_file(figure, Path(f"x.{ending}"))
    assert found.startswith(start)
    assert b"var(--" not in found


def test_other_endings_are_refused(reports: dict[str, StudyReport]) -> None:
    figure = FIGURES["hours"](reports["tuned"], PAPER)
    with pytest.raises(StudyFileError, match=r"x\.gif: ends with \.gif; valid: pdf, png, svg"):
        figure_file(figure, Path("x.gif"))
    with pytest.raises(StudyFileError, match="rungs: nothing to draw: the study has no rungs"):
        figure_file(FIGURES["rungs"](reports["tuned"], PAPER), Path("x.svg"))

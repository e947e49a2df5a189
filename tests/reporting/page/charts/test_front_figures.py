"""The Pareto front's figures: certain and uncertain trials, pairs of objectives, the hypervolume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpotune.records.trial import TrialRow
from hpotune.reporting.page.charts.front_figures import (
    CANDIDATE,
    CERTAIN,
    UNCERTAIN,
    hypervolume,
    pareto_front,
)
from hpotune.reporting.page.charts.look import PAGE
from hpotune.reporting.page.page_tables import front_table
from hpotune.reporting.views.study_report import StudyReport
from tests.fixtures.report_studies import OWN, START, own_rows, study_of

MEASURED = ((0.70, 10.0), (0.71, 20.0), (0.50, 5.0), (0.695, 15.0), (0.30, 30.0), (0.99, 1.0))
OBJECTIVES: list[dict[str, Any]] = [
    {"metric": "acc", "direction": "maximize"},
    {"metric": "gb", "direction": "minimize"},
]


def rows(*, limits: bool = True) -> list[TrialRow]:
    """Trial 1 is ahead of 0 by a third of an error at twice the memory; the last one violates a limit."""
    return [
        replace(
            row,
            values=values,
            stderrs=(0.02, None),
            start=START + 3600 * row.number,
            end=START + 3600 * (row.number + 1),
            breaks=("gb >= 2",) if limits and row.number == 5 else (),
        )
        for row, values in zip(own_rows(*(0.0 for _ in MEASURED)), MEASURED, strict=True)
    ]


@pytest.fixture
def report(tmp_path: Path) -> StudyReport:
    return study_of(tmp_path, rows(), **{**OWN, "score": {"objective": OBJECTIVES}}).report()


def series(report: StudyReport) -> dict[str, str]:
    layers = pareto_front(report, PAGE).panels[0].spec["layer"]
    points = next(one for one in layers if one["mark"]["type"] == "point")
    return {row["n"]: row["s"] for row in points["data"]["values"]}


def test_uncertain_members_are_hollow(report: StudyReport) -> None:
    found = series(report)
    assert found == {
        "0": CERTAIN, "1": UNCERTAIN, "2": CERTAIN, "3": CANDIDATE, "4": "other trial", "5": "violates a limit",
    }  # fmt: skip
    points = next(
        one for one in pareto_front(report, PAGE).panels[0].spec["layer"] if one["mark"]["type"] == "point"
    )
    fills = points["encoding"]["fill"]["scale"]
    hollow = {
        name for name, colour in zip(fills["domain"], fills["range"], strict=True) if colour == "transparent"
    }
    assert hollow == {UNCERTAIN, CANDIDATE}


def test_front_is_drawn_from_its_best(report: StudyReport) -> None:
    """In the order of the first objective, and without a reversed axis."""
    line = next(
        one for one in pareto_front(report, PAGE).panels[0].spec["layer"] if one["mark"]["type"] == "line"
    )
    rows = sorted(line["data"]["values"], key=lambda row: row["o"])
    assert [row["x"] for row in rows] == [0.71, 0.7, 0.5]
    assert "sort" not in line["encoding"]["x"]


def test_table_gives_each_probability(report: StudyReport) -> None:
    table = front_table(report)
    assert table is not None
    assert {row[0]: row[1] for row in table.rows} == {
        "1": "on it, uncertain", "0": "on it", "2": "on it", "3": "may be on it",
    }  # fmt: skip
    assert all(row[2].endswith(" %") for row in table.rows)


def test_hypervolume_rises_to_the_whole(report: StudyReport) -> None:
    by_trials, over_time = hypervolume(report, PAGE).panels
    assert report.best.pareto is not None
    steps = report.best.pareto.hypervolume.steps
    values = by_trials.spec["layer"][0]["data"]["values"]
    assert [row["n"] for row in values] == ["", *(str(one.number) for one in steps), str(steps[-1].number)]
    assert [row["y"] for row in values] == sorted(row["y"] for row in values)
    assert values[-1]["x"] == 5  # the one that violates a limit is not counted
    hours = [row["x"] for row in over_time.spec["layer"][0]["data"]["values"]]
    assert hours == [0, *(pytest.approx(one.number + 1, abs=1e-3) for one in steps), 6.0]


def test_three_objectives_give_three_panels(tmp_path: Path) -> None:
    three = [*OBJECTIVES, {"metric": "seconds_per_step", "direction": "minimize"}]
    more = [replace(row, values=(*row.values, 1.0), stderrs=(0.02, None, None)) for row in rows(limits=False)]
    report = study_of(tmp_path, more, **{**OWN, "score": {"objective": three}}).report()
    panels = pareto_front(report, PAGE).panels
    assert [panel.title for panel in panels] == [
        "acc and gb",
        "acc and seconds_per_step",
        "gb and seconds_per_step",
    ]
    assert not any(one["mark"]["type"] == "line" for panel in panels for one in panel.spec["layer"])

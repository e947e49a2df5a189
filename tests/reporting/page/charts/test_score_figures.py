"""With a rule in the study file, every figure and table ranks by its number, also where that is no objective."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.reporting.page.charts.figure_list import FIGURES
from hpotune.reporting.page.charts.look import PAGE
from hpotune.reporting.page.page_tables import MOST_TRIALS, report_tables, trials_table
from hpotune.reporting.views.study_report import StudyReport
from hpotune.reporting.views.trial_view import scored
from tests.fixtures.report_studies import fine_tuning, study_of

BY = "arc_easy/acc"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> StudyReport:
    """Trained parameters are 4096 times the rank: the rule leaves out the ranks above 128."""
    home = tmp_path_factory.mktemp("rule")
    made = fine_tuning(home)
    rule = {"maximize": BY, "subject_to": "trainable_parameters <= 524288"}
    return study_of(home, made.rows, best=rule).report()


def test_first_panel_is_the_rules(report: StudyReport) -> None:
    first, second = FIGURES["score-over-trials"](report, PAGE).panels
    assert (first.title, second.title) == (BY, "hellaswag/acc_norm")
    best = report.best.best
    assert best is not None
    line = next(one for one in first.spec["layer"] if one["mark"]["type"] == "line")
    assert line["data"]["values"][-1]["y"] == scored(best, BY)[0]
    points = first.spec["layer"][-1]["data"]["values"]
    assert {row["n"] for row in points if row["s"] == "excluded"} == set(report.best.excluded_by_rule)
    assert report.best.excluded_by_rule


@pytest.mark.parametrize("name", ["score-by-parameter", "parallel-coordinates", "importance"])
def test_other_figures_follow_the_rule(report: StudyReport, name: str) -> None:
    figure = FIGURES[name](report, PAGE)
    assert figure.panels
    if name == "score-by-parameter":
        assert figure.panels[0].spec["layer"][-1]["encoding"]["y"]["title"] == BY
    if name == "parallel-coordinates":
        assert BY in figure.panels[0].alt


def test_tables_follow_the_rule(report: StudyReport, tmp_path: Path) -> None:
    tables = report_tables(report)
    trials, agreement, settings = tables["trials"], tables["agreement"], tables["settings"]
    assert trials is not None
    assert agreement is not None
    assert settings is not None
    assert trials.columns[2:4] == (BY, "hellaswag/acc_norm")
    assert agreement.columns[0] == f"{BY} with"
    assert [row[0] for row in settings.rows[:2]] == [BY, "hellaswag/acc_norm"]
    left_out = next(row for row in trials.rows if int(row[0]) in report.best.excluded_by_rule)
    assert "left out by the rule: not trainable_parameters <= 524288" in left_out[-1]
    best = report.best.best
    assert best is not None
    assert len(report.trials) < MOST_TRIALS
    assert {row[0] for row in trials_table(report, most=2).rows} >= {"0"}


def test_costs_can_be_ranked_by(tmp_path: Path) -> None:
    made = fine_tuning(tmp_path, trials=24)
    report = study_of(tmp_path, made.rows, best={"minimize": "gpu_hours"}).report()
    first = FIGURES["score-over-trials"](report, PAGE).panels[0]
    assert first.spec["layer"][-1]["encoding"]["y"]["title"] == "gpu_hours (lower is better)"
    best = report.best.best
    assert best is not None
    assert best.gpu_hours == min(
        trial.gpu_hours for trial in report.trials if trial.kind == "trial" and trial.values
    )

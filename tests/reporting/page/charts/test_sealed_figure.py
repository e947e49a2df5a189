"""The sealed test's figure: differences to the base model with their intervals, or why there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpotune.reporting.page.charts.look import PAGE
from hpotune.reporting.page.charts.sealed_figure import sealed_test
from hpotune.reporting.page.sealed_tables import differences_table, sealed_table
from hpotune.reporting.views.study_report import StudyReport
from tests.fixtures.sealed_results import sealed_result


def test_differences_have_their_intervals(tuned: StudyReport) -> None:
    report = replace(tuned, sealed=sealed_result(0.05, 0.001))
    (panel,) = sealed_test(report, PAGE).panels
    (row,) = panel.spec["layer"][2]["data"]["values"]
    assert (row["t"], row["d"], row["lo"], row["hi"]) == (
        "trial 9",
        0.05,
        pytest.approx(0.03),
        pytest.approx(0.07),
    )
    assert row["s"] == "significant"
    table = differences_table(report)
    assert table is not None
    assert table.rows == (("trial 9", "mmlu/acc", "+0.050", "+0.030 to +0.070", "0.001", "significant"),)


def test_unopened_test_is_named(tuned: StudyReport) -> None:
    figure = sealed_test(tuned, PAGE)
    assert (figure.panels, figure.why_not) == ((), "mmlu: not opened yet (`hpotune test`)")
    assert differences_table(tuned) is None
    assert sealed_table(tuned) is None


def test_failed_finalist_says_why(tuned: StudyReport) -> None:
    result = sealed_result(0.05, 0.001)
    (trial,) = result.trials
    failed = replace(trial, state="failed", scores=(), failure="oom: too large")
    table = sealed_table(replace(tuned, sealed=replace(result, trials=(failed,), differences=())))
    assert table is not None
    assert table.rows[-1] == ("trial 9", "", "could not be scored (oom: too large)")

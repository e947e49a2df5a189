"""The five answers, on studies whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpotune.records.trial import EndedRace
from hpotune.reporting.page.answers import Answer, answers, summary
from hpotune.reporting.page.charts.figure_list import FIGURES
from hpotune.reporting.page.charts.look import PAGE
from hpotune.reporting.page.page_tables import trials_table
from hpotune.reporting.views.study_report import StudyReport
from tests.fixtures.repeats_results import repeats_result
from tests.fixtures.report_studies import OWN, fine_tuning, own_rows, study_of
from tests.fixtures.sealed_results import sealed_result


def by_question(report: StudyReport) -> dict[str, Answer]:
    return {one.question: one for one in answers(report)}


def test_tuned_study_is_answered(tuned: StudyReport) -> None:
    found = by_question(tuned)
    best = tuned.best.best
    assert best is not None
    assert found["Which setting is best?"].headline == f"Trial {best.number}"
    assert found["How much better than the base model?"].headline == "+0.12 hellaswag/acc_norm"
    assert found["How sure is that?"].headline == "Significantly better than the base model"
    assert found["At what cost?"].headline.endswith("GPU-hours")
    assert found["Does it hold on the sealed test?"].headline == "Not opened yet"
    assert summary(tuned) == "idle, 28 of 30 trials"


def test_function_has_no_base_model(tmp_path: Path) -> None:
    found = by_question(study_of(tmp_path, own_rows(0.3, 0.2), **OWN).report())
    assert found["How good is it?"].headline == "loss: 0.2"
    assert "no standard error" in found["How sure is that?"].details[0]
    assert found["Does it hold on the sealed test?"].headline == "The study has none"


def test_score_is_that_of_new_seeds(tmp_path: Path) -> None:
    report = study_of(tmp_path, own_rows(0.3, 0.2), **OWN).report()
    repeated = replace(report, best=replace(report.best, repeats=repeats_result(1, 2)))
    found = by_question(repeated)["How good is it?"].headline
    assert found == "loss: 0.62 ± 0.02 (mean of 3 new seeds)"


@pytest.mark.parametrize(
    ("values", "headline"),
    [((), "No trial has finished yet"), ((None, None), "Every trial so far has failed")],
)
def test_studies_without_a_best_trial(tmp_path: Path, values: tuple[None, ...], headline: str) -> None:
    found = answers(study_of(tmp_path, own_rows(*values), **OWN).report())
    assert found[0].headline == headline
    assert [one.headline for one in found[1:3]] == ["Not known yet", "Not known yet"]


@pytest.mark.parametrize(
    ("value", "p_value", "headline"),
    [
        (0.05, 0.001, "Yes: significantly better on 1 of 1 task"),
        (0.01, 0.4, "Not shown: no significant difference on 1 task"),
        (-0.05, 0.001, "No: significantly worse on 1 of 1 task"),
    ],
)
def test_sealed_test_is_answered(tuned: StudyReport, value: float, p_value: float, headline: str) -> None:
    answer = answers(replace(tuned, sealed=sealed_result(value, p_value)))[-1]
    assert answer.headline == headline
    assert answer.details[0] == "Trial 9 minus the base model, with 95 % confidence intervals:"
    assert answer.details[1].startswith("mmlu/acc ")


def test_second_opening_is_said(tuned: StudyReport) -> None:
    details = answers(replace(tuned, sealed=sealed_result(0.05, 0.001, openings=2, after=3)))[-1].details
    assert "opened 2 times" in details[-2]
    assert details[-1] == "3 trials finished after the first opening."


def test_raced_trials_are_said(tmp_path: Path) -> None:
    made = fine_tuning(tmp_path)
    at = max(row.number for row in made.rows if row.state == "finished")
    race = EndedRace(
        leader=3,
        leader_value=0.5,
        scored_items=300,
        items=500,
        difference=-0.1,
        difference_stderr=0.03,
        error=0.05,
    )
    rows = [replace(row, state="stopped", race=race) if row.number == at else row for row in made.rows]
    report = study_of(tmp_path, rows).report()
    assert "1 trial was not scored to the end" in by_question(report)["Which setting is best?"].details[-1]
    assert report.importance.raced == 1
    assert report.importance.trials == sum(row.state == "finished" and row.kind == "trial" for row in rows)
    assert "Left out: 1 that ended while they were scored" in FIGURES["importance"](report, PAGE).caption
    table = trials_table(report, most=None)
    remark = next(line[-1] for line in table.rows if line[0] == str(at))
    assert remark == "estimated from 300 of 500 items: worse than trial 3 by 0.1 ± 0.03"

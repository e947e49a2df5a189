from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hpotune.reporting.page.charts.trial_points import drawn, score_axis, scored, thinning_note
from tests.fixtures.report_studies import OWN, own_rows, study_of


def test_thinning_keeps_the_best_and_spreads(tmp_path: Path) -> None:
    values = [1.0 + (number * 7919 % 1000) / 1000 for number in range(1000)]
    report = study_of(tmp_path, own_rows(*values), **OWN).report()
    shown = drawn(report, scored(report), most=100)
    numbers = [trial.number for trial in shown]
    assert 95 <= len(numbers) <= 101
    assert report.best.best is not None
    assert report.best.best.number in numbers
    assert max(b - a for a, b in pairwise(numbers)) <= 12
    assert thinning_note(len(numbers), 1000).startswith(f"{len(numbers)} of 1000 trials are drawn")


def test_few_trials_are_all_drawn(tmp_path: Path) -> None:
    report = study_of(tmp_path, own_rows(0.1, 0.2, 5000.0), **OWN).report()
    assert len(drawn(report, scored(report))) == 3
    assert score_axis(report).limit is None

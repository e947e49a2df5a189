"""Which other scores stand beside the objective, and how far they agree with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpotune.reporting.page.charts.agreement_figure import validation_against_test
from hpotune.reporting.page.charts.look import PAPER
from hpotune.reporting.page.drawing import svg_of
from tests.fixtures.report_studies import OWN, own_rows, study_of


def test_own_numbers_are_other_scores(tmp_path: Path) -> None:
    """A function's further numbers are compared; what every trial costs is not."""
    losses = (0.5, 0.4, 0.3, 0.2, 0.1)
    rows = [
        replace(row, metrics={**row.metrics, "gb": 10 * loss, "gb_stderr": 0.1, "gpu_hours": loss})
        for row, loss in zip(own_rows(*losses), losses, strict=True)
    ]
    [found] = study_of(tmp_path, rows, **OWN).report().agreements
    assert (found.objective, found.other, found.pearson) == ("loss", "gb", pytest.approx(1.0))
    assert [one.other for one in found.pairs] == [10 * loss for loss in losses]


def test_names_with_line_ends_are_drawn(tmp_path: Path) -> None:
    """Vega-Lite ends without a word at such a name; a study made before they were left out may have one."""
    rows = [
        replace(row, metrics={**row.metrics, "a\nb": float(row.number)})
        for row in own_rows(0.3, 0.2, 0.1, 0.4)
    ]
    figure = validation_against_test(study_of(tmp_path, rows, **OWN).report(), PAPER)
    assert "U+000A" in svg_of(figure.panels[0].spec)

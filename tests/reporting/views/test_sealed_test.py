"""The result of the sealed test, as reports read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hpotune.config.load import Study
from hpotune.reporting.views.sealed_test import main_metric, sealed_test_result
from hpotune.workspace.folder import StudyFolder


def test_nothing_before_the_first_opening(make_study: Callable[..., Study], tmp_path: Path) -> None:
    assert sealed_test_result(StudyFolder(path=tmp_path / "s"), make_study()) is None


def test_usual_metric_is_compared(make_study: Callable[..., Study]) -> None:
    study = make_study()
    metrics = {
        "a/brier": 0.1,
        "a/acc": 0.5,
        "a/acc_stderr": 0.1,
        "a/acc_norm": 0.4,
        "b/exact_match,strict": 0.1,
    }
    assert main_metric(study, "a", metrics) == "acc_norm"
    assert main_metric(study, "b", metrics) == "exact_match,strict"
    assert main_metric(study, "c", metrics) is None

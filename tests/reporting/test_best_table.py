"""The best trial as `best` prints it: what it says of significance is what the numbers say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpotune.records.trial import TrialRow
from hpotune.reporting.best_table import base_model_comparison, best_table
from hpotune.reporting.paired_difference import Difference
from hpotune.reporting.views.best import ComparedTrial, CorrectedGain, best_result
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.report_rows import FINETUNE, config, finished, printed


def shown(folder: Path, *rows: TrialRow, **sections: Any) -> str:
    result = best_result(StudyFolder(path=folder), config(**(FINETUNE | sections)), rows)
    return printed(best_table(result), width=200)


def baseline(value: float) -> TrialRow:
    return finished(0, value, kind="baseline")


def test_significant_gain_is_better(tmp_path: Path) -> None:
    text = shown(tmp_path, baseline(0.5), finished(1, 0.8))
    sentence = "better than the base model (0.5 ± 0.01) by 0.300 (95 % confidence interval 0.272 to 0.328)"
    assert sentence in text


def test_gain_within_error_is_not_significant(tmp_path: Path) -> None:
    text = shown(tmp_path, baseline(0.5), finished(1, 0.51))
    assert (
        "not significantly better than the base model (0.5 ± 0.01): difference 0.010 "
        "(95 % confidence interval -0.018 to 0.038)" in text
    )


def test_zero_difference_is_none(tmp_path: Path) -> None:
    text = shown(tmp_path, replace(baseline(0.5), stderrs=(None,)), finished(1, 0.5, stderr=None))
    assert "no difference to the base model (0.5); significance unknown: this metric has no standard" in text
    assert "worse" not in text


def test_unknown_error_is_said(tmp_path: Path) -> None:
    text = shown(tmp_path, replace(baseline(0.5), stderrs=(None,)), finished(1, 0.6, stderr=None))
    assert (
        "better than the base model (0.5) by 0.1; significance unknown: this metric has no standard" in text
    )


def test_paired_difference_is_called_paired(tmp_path: Path) -> None:
    """The example of the README: value, interval and the word."""
    result = best_result(StudyFolder(path=tmp_path), config(**FINETUNE), [baseline(0.24), finished(1, 0.91)])
    corrected = CorrectedGain(value=0.672, low=0.582, high=0.762, at_least=0.59)
    result = replace(result, gain=Difference(value=0.68, stderr=0.046, paired=True), corrected_gain=corrected)
    sentence = base_model_comparison(result)
    assert sentence.endswith("by 0.67 (95 % confidence interval 0.58 to 0.76, paired)")


def test_ties_come_with_their_intervals(tmp_path: Path) -> None:
    rows = [finished(1, 0.91), finished(2, 0.9)]
    text = shown(tmp_path, baseline(0.5), *rows)
    assert (
        "not significantly different from: trial 2 (difference 0.010, 95 % confidence interval -0.018 to 0.038)"
        in text
    )


def test_many_ties_are_cut_to_five(tmp_path: Path) -> None:
    result = best_result(StudyFolder(path=tmp_path), config(**FINETUNE), [finished(1, 0.9)])
    delta = Difference(value=0.01, stderr=0.01, paired=True)
    tied = tuple(ComparedTrial(number=n, difference=delta) for n in range(2, 10))
    text = printed(best_table(replace(result, tied=tied)), width=900)
    assert text.count("paired") == 5
    assert "3 more (`hpotune best --json` lists them)" in text


def test_chosen_best_is_expected_lower(tmp_path: Path) -> None:
    """Four trials as good as each other: what the best one reached is more than it will reach again."""
    rows = [finished(number, 0.6 + number / 1000) for number in range(1, 5)]
    result = best_result(StudyFolder(path=tmp_path), config(**FINETUNE), [baseline(0.5), *rows])
    assert result.expected is not None
    assert result.expected.low < result.expected.value < 0.604 < result.expected.high
    text = printed(best_table(result))
    assert "expected on further items: 0." in text
    assert "corrected for the choice of the best of 4 trials)" in text


def test_smaller_loss_is_corrected_upwards(tmp_path: Path) -> None:
    score = {"objective": {"metric": "loss", "direction": "minimize"}}
    rows = [finished(number, 0.5 + number / 1000) for number in range(1, 5)]
    result = best_result(StudyFolder(path=tmp_path), config(score=score), rows)
    assert result.expected is not None
    assert result.expected.low < 0.501 < result.expected.value < result.expected.high


def test_cheapest_of_the_best_is_recommended(tmp_path: Path) -> None:
    costs = [(2_000_000, 70.0, 6.0), (1_000_000, 90.0, 6.0), (1_000_000, 80.0, 7.0), (500_000, 60.0, 5.0)]
    rows = [
        finished(
            number,
            value,
            metrics=dict(zip(("trainable_parameters", "train_seconds", "peak_memory_gb"), cost, strict=True)),
        )
        for number, value, cost in zip(range(1, 5), (0.91, 0.905, 0.9, 0.3), costs, strict=True)
    ]
    text = shown(tmp_path, baseline(0.2), *rows)
    assert "cheapest of these: trial 3 (1,000,000 trained parameters, 80 s of training, 7 GB)" in text
    assert "trial 4" not in text


def test_missing_baseline_claims_nothing(tmp_path: Path) -> None:
    assert "the base model was not scored: no comparison" in shown(tmp_path, finished(1, 0.51))


def test_function_has_no_base_model(tmp_path: Path) -> None:
    result = best_result(StudyFolder(path=tmp_path), config(), [finished(1, 0.5)])
    assert "base model" not in printed(best_table(result))


def test_baseline_is_never_the_best(tmp_path: Path) -> None:
    assert "trial 1" in shown(tmp_path, baseline(0.9), finished(1, 0.5)).splitlines()[0]


def test_standard_error_is_explained(tmp_path: Path) -> None:
    assert "0.51 ± 0.01  (±: standard error)" in shown(tmp_path, finished(1, 0.51))
    assert "standard error" not in shown(tmp_path, finished(1, 0.51, stderr=None))


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([], "s: no trial has finished yet"),
        ([finished(1, breaks=("size=3 > 2",))], "s: no trial satisfies score.constraints yet"),
    ],
)
def test_nothing_to_show_is_one_sentence(tmp_path: Path, rows: list[TrialRow], text: str) -> None:
    assert shown(tmp_path, *rows).splitlines()[0].rstrip() == text


def test_violated_limits_are_named(tmp_path: Path) -> None:
    rows = [finished(1), finished(2, 0.9, breaks=("size=3 > 2",))]
    text = shown(tmp_path, *rows)
    assert text.startswith("best of 2 trials: trial 1")
    assert "excluded by score.constraints: trial 2 (size=3 > 2)" in text
    more = shown(tmp_path, *rows, finished(3, 0.9, breaks=("size=4 > 2",)))
    assert "excluded by score.constraints: 2 trials, e.g. trial 2 (size=3 > 2)" in more

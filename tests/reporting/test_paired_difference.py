"""Differences of scores against a reference worked by hand or by scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from hpotune.config.schema.study_config import Objective
from hpotune.records.trial import TrialRow
from hpotune.reporting.paired_difference import difference
from hpotune.reporting.score_items import ItemReader
from hpotune.reporting.views.best_answer import best_answer
from hpotune.workspace.folder import StudyFolder

ACC = Objective(task="toy", metric="acc")
LOSS = Objective(metric="eval_loss")


def row(number: int, value: float, stderr: float | None = 0.05) -> TrialRow:
    return TrialRow(
        number=number, kind="trial", state="finished", params={}, values=(value,), stderrs=(stderr,)
    )


def keep_items(folder: StudyFolder, number: int, items: npt.NDArray[np.float64]) -> TrialRow:
    path = folder.trial(number) / "items.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **{"toy/acc": items, "toy/doc_id": np.arange(len(items))})
    return row(number, float(items.mean()), float(items.std(ddof=1) / np.sqrt(len(items))))


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(path=tmp_path)


def test_paired_difference_equals_t_test(folder: StudyFolder) -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, 200).astype(float)
    better = np.where(rng.random(200) < 0.1, 1.0, base)
    found = difference(ItemReader(folder, ACC), 0, keep_items(folder, 1, better), keep_items(folder, 2, base))
    test = stats.ttest_rel(better, base)
    assert found.paired
    assert found.value == pytest.approx(float((better - base).mean()))
    assert found.value / (found.stderr or 1) == pytest.approx(float(test.statistic))


def test_equal_answers_keep_an_error(folder: StudyFolder) -> None:
    """200 items answered alike do not show a difference of exactly zero: with half an item for each, 1 / 202."""
    items = np.tile([0.0, 1.0], 100)
    one, other = keep_items(folder, 1, items), keep_items(folder, 2, items)
    found = difference(ItemReader(folder, ACC), 0, one, other)
    assert (found.value, found.stderr) == (0.0, pytest.approx(1 / 202))
    answer = best_answer(ItemReader(folder, ACC), [one], other).gain
    assert answer is not None
    assert not answer.significant
    assert (answer.low, answer.high) == found.interval


def test_pairing_finds_a_small_difference(folder: StudyFolder, tmp_path: Path) -> None:
    """The standard errors of the two means alone would hide it."""
    base = np.tile([0.0, 1.0], 100)
    better = base.copy()
    better[:20:2] = 1.0
    one, other = keep_items(folder, 1, better), keep_items(folder, 2, base)
    assert difference(ItemReader(folder, ACC), 0, one, other).significant
    assert not difference(ItemReader(StudyFolder(path=tmp_path / "no-items"), ACC), 0, one, other).significant


def test_standard_errors_add_in_squares(folder: StudyFolder) -> None:
    found = difference(ItemReader(folder, ACC), 0, row(1, 0.6, 0.03), row(2, 0.5, 0.04))
    assert (found.stderr, found.paired) == (pytest.approx(0.05), False)


def test_interval_is_that_of_a_normal(folder: StudyFolder) -> None:
    found = difference(ItemReader(folder, ACC), 0, row(1, 0.6, 0.03), row(2, 0.5, 0.04))
    expected = stats.norm.interval(0.95, loc=0.1, scale=0.05)
    assert found.interval == pytest.approx(expected, abs=1e-5)  # 1.96 for 1.95996
    assert found.significant is bool(expected[0] > 0)


def test_smaller_loss_is_better(folder: StudyFolder) -> None:
    assert difference(ItemReader(folder, LOSS), 0, row(1, 1.5, None), row(2, 2.0, None)).value == 0.5


def test_unknown_error_has_no_significance(folder: StudyFolder) -> None:
    found = difference(ItemReader(folder, LOSS), 0, row(1, 1.5, None), row(2, 2.0, None))
    assert (found.significant, found.interval) == (None, None)


def test_score_without_mean_is_unpaired(folder: StudyFolder) -> None:
    one, other = keep_items(folder, 1, np.ones(10)), keep_items(folder, 2, np.zeros(10))
    assert difference(ItemReader(folder, ACC), 0, one, other).paired
    assert not difference(ItemReader(folder, ACC), 0, row(1, 2.72), row(2, 1.0)).paired


def test_different_items_are_unpaired(folder: StudyFolder) -> None:
    one, other = keep_items(folder, 1, np.ones(10)), keep_items(folder, 2, np.zeros(12))
    assert not difference(ItemReader(folder, ACC), 0, one, other).paired

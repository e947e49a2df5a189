"""Differences of scores against a reference worked by hand or by scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hpotune.config.schema.study_config import Objective
from hpotune.records.trial import TrialRow
from hpotune.report.compare import difference, tied_with
from hpotune.workspace.folder import StudyFolder

ACC = Objective(task="toy", metric="acc")


def row(number: int, value: float, stderr: float | None = 0.05) -> TrialRow:
    return TrialRow(
        number=number, kind="trial", state="finished", params={}, values=(value,), stderrs=(stderr,)
    )


def keep_items(folder: StudyFolder, number: int, items: np.ndarray) -> TrialRow:
    path = folder.trial(number) / "items.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **{"toy/acc": items, "toy/doc_id": np.arange(len(items))})
    return row(number, float(items.mean()), float(items.std(ddof=1) / np.sqrt(len(items))))


def test_a_paired_difference_has_the_error_of_a_paired_t_test(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, 200).astype(float)
    better = np.where(rng.random(200) < 0.1, 1.0, base)
    folder = StudyFolder(path=tmp_path)
    found = difference(folder, ACC, 0, keep_items(folder, 1, better), keep_items(folder, 2, base))
    test = stats.ttest_rel(better, base)
    assert found.paired
    assert found.gain == pytest.approx(float((better - base).mean()))
    assert found.gain / (found.stderr or 1) == pytest.approx(float(test.statistic))


def test_pairing_sees_a_difference_that_two_blurred_means_hide(tmp_path: Path) -> None:
    base = np.tile([0.0, 1.0], 100)
    better = base.copy()
    better[:20:2] = 1.0
    folder = StudyFolder(path=tmp_path)
    one, other = keep_items(folder, 1, better), keep_items(folder, 2, base)
    assert difference(folder, ACC, 0, one, other).sure
    assert not difference(StudyFolder(path=tmp_path / "no-items"), ACC, 0, one, other).sure


def test_without_items_the_errors_add_in_squares(tmp_path: Path) -> None:
    found = difference(StudyFolder(path=tmp_path), ACC, 0, row(1, 0.6, 0.03), row(2, 0.5, 0.04))
    assert (found.stderr, found.paired) == (pytest.approx(0.05), False)


def test_a_smaller_loss_is_a_gain(tmp_path: Path) -> None:
    loss = Objective(metric="eval_loss")
    assert difference(StudyFolder(path=tmp_path), loss, 0, row(1, 1.5, None), row(2, 2.0, None)).gain == 0.5


def test_without_a_known_error_nothing_is_sure(tmp_path: Path) -> None:
    loss = Objective(metric="eval_loss")
    found = difference(StudyFolder(path=tmp_path), loss, 0, row(1, 1.5, None), row(2, 2.0, None))
    assert found.sure is None
    assert tied_with(StudyFolder(path=tmp_path), loss, row(1, 1.5, None), [row(2, 1.5, None)]) == []


def test_a_score_that_is_no_mean_of_its_items_is_not_paired(tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path)
    one, other = keep_items(folder, 1, np.ones(10)), keep_items(folder, 2, np.zeros(10))
    assert difference(folder, ACC, 0, one, other).paired
    assert not difference(folder, ACC, 0, row(1, 2.72), row(2, 1.0)).paired


def test_items_of_different_length_are_not_paired(tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path)
    found = difference(
        folder, ACC, 0, keep_items(folder, 1, np.ones(10)), keep_items(folder, 2, np.zeros(12))
    )
    assert not found.paired


def test_the_best_is_tied_with_those_within_the_error_only(tmp_path: Path) -> None:
    rows = [row(1, 0.9), row(2, 0.85), row(3, 0.3)]
    assert [r.number for r in tied_with(StudyFolder(path=tmp_path), ACC, rows[0], rows)] == [2]

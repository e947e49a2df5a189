"""The items that scores are made of, read from the files of trials."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest

from hpotune.config.schema.study_config import Objective
from hpotune.records.trial import TrialRow
from hpotune.reporting.json_output import as_json
from hpotune.reporting.score_items import ItemReader, score_items, score_table
from hpotune.reporting.views.best import best_result
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.report_rows import FINETUNE, config

GROUP = Objective(task="exam", metric="acc")
RNG = np.random.default_rng(0)


def keep(folder: StudyFolder, number: int, value: float, **arrays: npt.ArrayLike) -> TrialRow:
    path = folder.trial(number) / "items.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **{name.replace("__", "/"): np.asarray(one) for name, one in arrays.items()})
    return TrialRow(
        number=number, kind="trial", state="finished", params={}, values=(value,), stderrs=(0.05,)
    )


def exam(folder: StudyFolder, number: int, subjects: int, *, equal: bool) -> TrialRow:
    """A group of subjects with 4, 5, 6 … items; its score weighs items, or subjects, equally."""
    parts = {f"s{k:02}": RNG.integers(0, 2, 4 + k).astype(float) for k in range(subjects)}
    value = np.mean([p.mean() for p in parts.values()]) if equal else np.concatenate([*parts.values()]).mean()
    arrays: dict[str, npt.ArrayLike] = {"exam__leaves": sorted(parts)}
    for name, items in parts.items():
        arrays |= {f"{name}__acc": items, f"{name}__doc_id": np.arange(len(items))}
    return keep(folder, number, float(value), **arrays)


@pytest.mark.parametrize("equal", [True, False])
def test_group_is_compared_by_its_items(equal: bool, tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path)
    rows = [exam(folder, number, 3, equal=equal) for number in (1, 2)]
    items = score_items(folder, GROUP, rows[0])
    assert items is not None
    assert (len(items.ids), items.clusters) == (15, None)
    table = score_table(ItemReader(folder, GROUP), rows, None)
    assert table is not None
    assert table.values == pytest.approx([row.values[0] for row in rows])
    assert table.parts.shape == (2, 15)


def test_many_subjects_are_clusters(tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path)
    items = score_items(folder, GROUP, exam(folder, 1, 12, equal=False))
    assert items is not None
    assert items.clusters is not None
    assert len(set(items.clusters)) == 12


def test_stored_clusters_are_used(tmp_path: Path) -> None:
    arrays = {"exam__acc": [1, 0, 1, 1], "exam__doc_id": [0, 1, 2, 3], "exam__cluster": [0, 0, 1, 1]}
    row = keep(StudyFolder(path=tmp_path), 1, 0.75, **arrays)
    table = score_table(ItemReader(StudyFolder(path=tmp_path), GROUP), [row], None)
    assert table is not None
    assert table.parts.shape == (1, 2)


def test_score_of_no_items_is_independent(tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path)
    rows = [keep(folder, n, 0.5, exam__acc=[1, 0, 1], exam__doc_id=[0, 1, 2]) for n in (1, 2)]
    table = score_table(ItemReader(folder, GROUP), rows, None)
    assert table is not None
    assert table.parts[0] @ table.parts[1] == 0
    assert table.stderr(table.parts[0]) == 0.05


def test_best_is_tested_against_base(tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path)
    items = {"exam__doc_id": range(8)}
    base = keep(folder, 0, 0.25, exam__acc=[1, 1, 0, 0, 0, 0, 0, 0], **items)
    best = keep(folder, 1, 0.875, exam__acc=[1, 0, 1, 1, 1, 1, 1, 1], **items)
    score = {"objective": {"task": "exam", "metric": "acc", "direction": "maximize"}}
    result = best_result(folder, config(**FINETUNE, score=score), [replace(base, kind="baseline"), best])
    assert result.gain_test is not None
    assert result.gain_test.method == "exact McNemar"
    assert result.gain_test.p_value == pytest.approx(binomtest(6, 7).pvalue)
    assert result.gain_test.value == pytest.approx(0.625)
    assert '"significant": true' in json.dumps(as_json(result))


def test_equal_items_have_json(tmp_path: Path) -> None:
    """Every item right in both: no error at all, and the numbers are still Python's."""
    folder = StudyFolder(path=tmp_path)
    rows = [keep(folder, n, 1.0, exam__acc=np.ones(4), exam__doc_id=range(4)) for n in (0, 1)]
    score = {"objective": {"task": "exam", "metric": "acc", "direction": "maximize"}}
    result = best_result(
        folder, config(**FINETUNE, score=score), [replace(rows[0], kind="baseline"), rows[1]]
    )
    assert '"significant": false' in json.dumps(as_json(result))

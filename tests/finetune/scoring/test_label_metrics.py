"""The metrics of labels beside those of scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from hpotune.finetune.scoring.label_metrics import label_metrics
from hpotune.finetune.training.loss import Row

DRAW = np.random.default_rng(3)


def row(target: int = 0, **label: object) -> Row:
    return Row(ids=[1], targets=[target], **label)


@pytest.mark.parametrize("classes", [2, 5])
def test_one_class_is_as_scikit_learns(classes: int) -> None:
    true, outputs = DRAW.integers(0, classes, 60), DRAW.normal(size=(60, classes))
    found, predicted = label_metrics([row(int(one)) for one in true], outputs), outputs.argmax(1)
    assert found["eval_f1_macro"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert found["eval_matthews"] == pytest.approx(matthews_corrcoef(true, predicted))
    assert found.get("eval_f1") == (pytest.approx(f1_score(true, predicted)) if classes == 2 else None)


def test_several_classes_are_as_scikit_learns() -> None:
    true, outputs = DRAW.random((60, 4)) < 0.4, DRAW.normal(size=(60, 4))
    rows = [row(classes=tuple(np.flatnonzero(one).tolist())) for one in true]
    found, predicted = label_metrics(rows, outputs), outputs > 0
    assert found["eval_accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert found["eval_f1_macro"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert found["eval_f1_micro"] == pytest.approx(f1_score(true, predicted, average="micro"))


def test_numbers_are_as_scipys() -> None:
    true, outputs = DRAW.normal(size=60), DRAW.normal(size=(60, 1))
    found = label_metrics([row(number=float(one)) for one in true], outputs)
    assert found == {"eval_pearson": pytest.approx(pearsonr(true, outputs[:, 0]).statistic)}


def test_undefined_numbers_are_left_out() -> None:
    assert label_metrics([row(number=1.0), row(number=1.0)], np.array([[0.3], [0.4]])) == {}
    one_class = label_metrics([row(0), row(0)], np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert one_class == {"eval_f1_macro": 1.0, "eval_matthews": 0.0}  # no row and no prediction has class 1

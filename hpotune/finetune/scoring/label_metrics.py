"""How good the outputs of a classifier or a regression are on the validation rows, of all ranks together.

The same numbers as scikit-learn's with its defaults (tests compare them), but that a class which neither a row nor a
prediction has does not count in a macro mean. A number that is not defined is left out.

Shape suffixes: N rows, V outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hpotune.finetune.training.loss import Row

Floats = NDArray[np.float64]


def label_metrics(rows: Sequence[Row], outputs_NV: Floats) -> dict[str, float]:
    """The metrics of rows and the outputs for them, by the name under `score`."""
    if rows[0].number is not None:
        found = {"eval_pearson": _pearson(np.array([row.number for row in rows]), outputs_NV[:, 0])}
    elif rows[0].classes is not None:
        true = np.zeros(outputs_NV.shape, dtype=bool)
        for number, row in enumerate(rows):
            true[number, [*(row.classes or ())]] = True
        found = _of_several(true, outputs_NV > 0)
    else:
        found = _of_one(np.array([row.targets[0] for row in rows]), outputs_NV)
    return {name: float(value) for name, value in found.items() if value is not None}


def _of_one(true_N: NDArray[np.int64], outputs_NV: Floats) -> dict[str, float | None]:
    classes = outputs_NV.shape[1]
    counts = np.zeros((classes, classes))  # true class x predicted one
    np.add.at(counts, (true_N, outputs_NV.argmax(1)), 1)
    hits, of_true, of_predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    f1 = _f1(hits, of_true, of_predicted)
    return {
        "eval_f1": f1[1] if classes == 2 and not np.isnan(f1[1]) else None,
        "eval_f1_macro": _mean(f1),
        "eval_matthews": _matthews(hits, of_true, of_predicted),
    }


def _of_several(true_NV: NDArray[np.bool_], predicted_NV: NDArray[np.bool_]) -> dict[str, float | None]:
    hits, of_true, of_predicted = ((true_NV & predicted_NV).sum(0), true_NV.sum(0), predicted_NV.sum(0))
    return {
        "eval_accuracy": float((true_NV == predicted_NV).all(1).mean()),
        "eval_f1_macro": _mean(_f1(hits, of_true, of_predicted)),
        "eval_f1_micro": _mean(_f1(hits.sum(keepdims=True), of_true.sum(), of_predicted.sum())),
    }


def _f1(hits: Floats, of_true: Floats, of_predicted: Floats) -> Floats:
    """For each class; NaN for one that neither a row nor a prediction has."""
    with np.errstate(invalid="ignore"):
        found: Floats = 2 * hits / (of_true + of_predicted)
    return found


def _mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _matthews(hits: Floats, of_true: Floats, of_predicted: Floats) -> float:
    """For any number of classes; 0 where only one class is there, or predicted. Source: Gorodkin (2004)."""
    total = of_true.sum()
    spread = np.sqrt((total**2 - (of_true**2).sum()) * (total**2 - (of_predicted**2).sum()))
    return float((hits.sum() * total - (of_true * of_predicted).sum()) / spread) if spread else 0.0


def _pearson(true_N: Floats, predicted_N: Floats) -> float | None:
    """None where one of the two does not vary."""
    one, other = true_N - true_N.mean(), predicted_N - predicted_N.mean()
    scale = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / scale) if scale > 0 else None

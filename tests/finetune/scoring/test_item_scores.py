"""The arrays of items.npz from lm-eval's samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hpotune.config.lm_eval_tasks import task_index
from hpotune.finetune.scoring.item_scores import item_scores


def arrays(*docs: dict[str, Any]) -> dict[str, np.ndarray]:
    samples = [
        {"doc_id": number, "doc": doc, "filter": "none", "metrics": ["acc"], "acc": float(number % 2)}
        for number, doc in reversed([*enumerate(docs)])
    ]
    index = task_index(None)
    assert index is not None
    return item_scores({"group_subtasks": {}, "results": {}, "samples": {"boolq": samples}}, ["boolq"], index)


def test_scores_are_in_order_of_items() -> None:
    found = arrays({"question": "a"}, {"question": "b"}, {"question": "c"})
    assert found["boolq/acc"].tolist() == [0, 1, 0]
    assert found["boolq/doc_id"].tolist() == [0, 1, 2]
    assert "boolq/cluster" not in found


def test_passage_is_a_cluster() -> None:
    found = arrays(*({"passage": text, "question": "q"} for text in ("P", "P", "Q", "P")))
    assert found["boolq/cluster"].tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("texts", [("P", "Q", "R"), ("P", "P", "P"), ("P", None, "P")])
def test_no_shared_passage_is_no_cluster(texts: tuple[str | None, ...]) -> None:
    assert "boolq/cluster" not in arrays(*({"passage": text} for text in texts))

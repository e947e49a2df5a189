"""The classes are those trained: their names and order reach the base model's config, the adapter and the exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from hpotune.config.schema.study_config import ModelConfig
from hpotune.finetune.data.dataset import DataRow, DataSplit
from hpotune.finetune.model.adapter_export import main
from hpotune.finetune.model.labels import class_order, read_labels, with_class_order, write_labels
from hpotune.finetune.trial_errors import DataError, UserError
from tests.fixtures.tiny_model import tiny_model
from tests.fixtures.tiny_trials import run_here

OWN = ["top", "mid", "low"]


def base(folder: Path, names: list[str] | None, *, head: bool = True, generic: int = 3) -> ModelConfig:
    """A config alone: no weights are read. `names`: of the base model's classes."""
    labels = (
        {}
        if names is None
        else {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    )
    config = transformers.LlamaConfig(**(labels or {"num_labels": generic}))
    config.architectures = ["LlamaForSequenceClassification" if head else "LlamaForCausalLM"]
    config.save_pretrained(folder)
    return ModelConfig(path=str(folder), task="sequence_classification")


@pytest.mark.parametrize(
    ("own", "head", "names", "order"),
    [
        (OWN, True, ["low", "mid", "top"], OWN),
        (OWN, True, ["low", "top"], OWN),
        (OWN, False, ["low", "mid", "top"], OWN),
        (OWN, False, ["bad", "good"], ["bad", "good"]),
        (None, True, ["low", "mid", "top"], ["low", "mid", "top"]),
        (None, False, ["b", "a"], ["b", "a"]),
        (None, False, ["only"], ["only", "LABEL_1"]),
        (["0", "1"], True, ["1"], ["0", "1"]),
        (None, True, ["0", "2"], ["0", "LABEL_1", "2"]),
        (None, True, ["1", "2", "3"], ["1", "2", "3"]),
        (None, True, ["0", "1", "2"], ["0", "1", "2"]),
        (None, False, ["0", "2"], ["0", "2"]),
    ],
)
def test_order_is_that_of_base(
    tmp_path: Path, own: Any, head: bool, names: list[str], order: list[str]
) -> None:
    assert class_order(base(tmp_path, own, head=head), names) == order


def test_other_labels_are_refused(tmp_path: Path) -> None:
    text = "model.path: the classification head of .* has the labels top, mid, low, and the rows hold bad, mid; rename"
    with pytest.raises(UserError, match=text):
        class_order(base(tmp_path, OWN), ["bad", "mid"])


def test_number_of_labels_is_kept(tmp_path: Path) -> None:
    config = base(tmp_path, None).model_copy(update={"num_labels": 4})
    assert class_order(config, ["a", "b"]) == ["a", "b", "LABEL_2", "LABEL_3"]
    assert class_order(config, ["1", "3"]) == ["LABEL_0", "1", "LABEL_2", "3"]
    with pytest.raises(DataError, match=r"model.num_labels: 2, but there are 3 labels \(a, b, c\); raise it"):
        class_order(config.model_copy(update={"num_labels": 2}), ["a", "b", "c"])


def test_rows_are_renumbered() -> None:
    def rows(*labels: int) -> list[DataRow]:
        return [DataRow(number=i, values={"label": label}) for i, label in enumerate(labels)]

    split = DataSplit(train=rows(0, 1, 2), validation=rows(2), labels=["low", "mid", "top"])
    changed = with_class_order(split, OWN)
    assert [row.values["label"] for row in [*changed.train, *changed.validation]] == [2, 1, 0, 0]
    assert changed.labels == OWN
    assert with_class_order(split, ["low", "mid", "top", "LABEL_3"]) is split


def test_names_are_written_as_they_are(tmp_path: Path) -> None:
    assert read_labels(tmp_path) is None
    write_labels(tmp_path, None)
    assert read_labels(tmp_path) is None
    write_labels(tmp_path, ["größer", "007"])
    assert read_labels(tmp_path) == ["größer", "007"]


def test_trial_keeps_order_of_base(make_spec: Any, tmp_path: Path) -> None:
    """The base model's head says top for class 0: rows named low must be trained and exported as class 2."""
    folder = tiny_model(tmp_path / "base", num_labels=3, dtype="float64", layers=1)
    config = transformers.AutoConfig.from_pretrained(folder)
    config.id2label, config.label2id = dict(enumerate(OWN)), {name: i for i, name in enumerate(OWN)}
    config.save_pretrained(folder)
    words = {"low": "whale coral tide", "mid": "oven flour spoon", "top": "comet orbit moon"}
    rows = [f'{{"text": "{text}", "label": "{name}"}}\n' for name, text in words.items()] * 4
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    spec = make_spec(
        model={"path": str(folder), "task": "sequence_classification"},
        data={"path": str(tmp_path / "rows.jsonl"), "prompt": "text", "response": None, "validation": 3},
        train={"max_steps": 30, "learning_rate": 1e-2},
        score={"objective": [{"metric": "eval_accuracy"}]},
    )
    assert run_here(spec).values == [1.0]
    adapter = Path(spec.folder) / "adapter"
    assert read_labels(adapter) == OWN
    main([str(adapter), str(tmp_path / "merged"), "--merge"], {"base": str(folder), "date": "2026-01-01"})
    merged = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    batch = tokenizer(list(words.values()), padding=True, return_tensors="pt")
    with torch.no_grad():
        answers = merged(**batch).logits.argmax(-1).tolist()
    assert [merged.config.id2label[answer] for answer in answers] == list(words)

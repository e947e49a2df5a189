"""What the static check finds in the columns of a study's data."""

from __future__ import annotations

import pytest

from hpotune.config.rows.data_check import data_mistakes
from hpotune.config.schema.study_config import PointConfig


def point(tmp_path, **data) -> PointConfig:
    score = {"objective": {"metric": "eval_loss"}}
    model = {"path": "a/b", "task": data.pop("task", "causal_lm")}
    return PointConfig.model_validate(
        {"model": model, "data": {"path": str(tmp_path / "rows.csv"), **data}, "score": score}
    )


@pytest.mark.parametrize(
    ("header", "data", "missing"),
    [
        ("instruction,output", {}, []),
        ("instruction,answer", {}, ["output"]),
        ("instruction,answer", {"columns": {"output": "answer"}}, []),
        ("question", {"prompt": "text"}, ["text"]),
        ("question,reply", {"prompt": "Q: {question} {\"json\": 1}", "response": "{reply}"}, []),
        ("question", {"prompt": "Q: {question}", "response": "{reply}"}, ["reply"]),
        ("messages", {"prompt": "chat"}, []),
        ("text,label", {"prompt": "text", "task": "sequence_classification"}, []),
        ("text,stars", {"prompt": "text", "task": "sequence_classification"}, ["label"]),
        ("instruction,label", {"task": "sequence_classification"}, []),
    ],
)  # fmt: skip
def test_missing_prompt_columns_are_errors(header, data, missing, tmp_path):
    (tmp_path / "rows.csv").write_text(header + "\n")
    errors = [text for _, text in data_mistakes(point(tmp_path, **data), data_root=None)]
    assert [f"column {name!r}" in text for name, text in zip(missing, errors, strict=True)] == [True] * len(
        missing
    )


def test_data_root_folder_is_checked(tmp_path):
    (tmp_path / "me" / "rows").mkdir(parents=True)
    (tmp_path / "me" / "rows" / "train-0.jsonl").write_text('{"text": "a"}\n')
    found = list(data_mistakes(point(tmp_path, path="me/rows", prompt="{txt}"), data_root=str(tmp_path)))
    assert "column 'txt' is not in" in found[0][1]
    assert "did you mean 'text'?" in found[0][1]


def test_hub_data_is_not_checked(tmp_path):
    assert list(data_mistakes(point(tmp_path, path="me/rows"), data_root=None)) == []

"""Rows as files: the tokens that a trial trains, and its texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from hpotune.finetune.data.row_export import main
from hpotune.finetune.inputs import load_inputs
from hpotune.finetune.trial_errors import DataError
from hpotune.records.trial import TrialSpec


def request(spec: TrialSpec, form: str) -> dict[str, Any]:
    return {"form": form, "point": spec.point.model_dump(mode="json"), "data_root": None, "prepared": None}


def test_tokens_are_those_of_training(make_spec: Callable[..., TrialSpec], tmp_path: Path) -> None:
    spec = make_spec(data={"max_length": 20})
    main(tmp_path, request(spec, "tokens"))
    inputs = load_inputs(spec.point.model, spec.point.data, data_root=None)  # type: ignore[arg-type]
    for name, rows in (("train", inputs.train), ("validation", inputs.validation)):
        lines = [json.loads(line) for line in (tmp_path / f"rows/{name}.jsonl").read_text().splitlines()]
        assert [(one["input_ids"], one["labels"]) for one in lines] == [
            (row.ids, row.targets) for row in rows
        ]
        assert all(set(one["attention_mask"]) == {1} for one in lines)


def test_arrow_holds_the_same(make_spec: Callable[..., TrialSpec], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    spec = make_spec()
    counts = main(tmp_path / "a", request(spec, "arrow"))
    main(tmp_path / "b", request(spec, "tokens"))
    saved = datasets.load_from_disk(str(tmp_path / "a/rows"))
    lines = (tmp_path / "b/rows/train.jsonl").read_text().splitlines()
    assert saved["train"].to_list() == [json.loads(line) for line in lines]
    assert counts["train"] == 40


def test_pairs_are_prompt_and_answer(make_spec: Callable[..., TrialSpec], tmp_path: Path) -> None:
    main(tmp_path, request(make_spec(), "pairs"))
    first = json.loads((tmp_path / "rows/train.json").read_text())[0]
    assert first["instruction"].endswith(" Topic: ")
    assert first["output"] in ("music", "ocean", "kitchen", "space")


def test_conversation_is_no_pair(make_spec: Callable[..., TrialSpec], tmp_path: Path) -> None:
    turns = [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]
    (tmp_path / "chat.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 4)
    spec = make_spec(
        data={"path": str(tmp_path / "chat.jsonl"), "prompt": "chat", "response": None, "validation": 1}
    )
    with pytest.raises(DataError, match="has several answers, or text after its answer"):
        main(tmp_path, request(spec, "pairs"))

"""Rows in the order in which they are stored: those that `load_rows` draws, with its errors and warnings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpotune.config.schema.study_config import DataConfig
from hpotune.finetune.data import row_stream
from hpotune.finetune.data.dataset import DataSplit, load_rows
from hpotune.finetune.data.row_stream import RowStream, stream_rows
from hpotune.finetune.trial_errors import DataError

TEMPLATE = {"prompt": "{q} ", "response": "{a.text}", "validation": 5}
ROWS = [{"q": None if n % 9 == 0 else f"q{n}", "a": {"text": "" if n % 7 == 0 else n}} for n in range(40)]


def file_of(folder: Path, rows: list[dict[str, Any]]) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "rows.jsonl")


def both(
    path: str, *, labelled: bool = False, kind: str | None = None, **data: Any
) -> tuple[DataSplit, RowStream]:
    whole = load_rows(DataConfig(path=path, **data), data_root=None, labelled=labelled, problem_type=kind)
    config = DataConfig(path=path, streaming=True, **data)
    return whole, stream_rows(config, data_root=None, labelled=labelled, source="", problem_type=kind)


def drawn(stream: RowStream) -> list[Any]:
    """The rows in the drawn order."""
    return [
        row for _, row in sorted((one for block in stream.blocks() for one in block), key=lambda one: one[0])
    ]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"rows": 20},
        {"split": "train[50%:]+train[:10]", "seed": 3},
        {"columns": {"z": "a.text"}, "response": "{z}"},
    ],
)
def test_rows_are_those_in_memory(
    tmp_path: Path, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_stream, "ROWS_READ", 7)
    whole, stream = both(file_of(tmp_path, ROWS), **{**TEMPLATE, **data})
    assert drawn(stream) == [*whole.validation, *whole.train]
    assert (stream.held_out, stream.train_count) == (len(whole.validation), len(whole.train))
    assert stream.warnings == whole.warnings
    for block in stream.blocks():
        assert len(block) <= 7
        assert [row.number for _, row in block] == sorted(row.number for _, row in block)


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        (None, ["b", "a", None, "c"]),
        (None, [1, 1, 1, 1]),
        ("multi_label_classification", [["b"], ["a", "b"], [], None]),
        ("regression", [0.5, "1e-3", None, 2]),
    ],
)
def test_labels_are_those_in_memory(tmp_path: Path, kind: str | None, labels: list[Any]) -> None:
    rows = [{"text": f"t{n}", "label": labels[n % 4]} for n in range(40)]
    whole, stream = both(file_of(tmp_path, rows), labelled=True, kind=kind, prompt="text", validation=5)
    assert drawn(stream) == [*whole.validation, *whole.train]
    assert (stream.labels, stream.warnings) == (whole.labels, whole.warnings)


@pytest.mark.parametrize(
    ("labelled", "data"),
    [
        (False, {"prompt": "{absent}"}),
        (False, {"prompt": "{q}", "response": "{a.absent}"}),
        (False, {"prompt": "chat"}),
        (True, {"prompt": "{q}"}),
        (True, {"prompt": "{q}", "columns": {"label": "a"}}),
        (False, {**TEMPLATE, "validation": 40}),
        (False, {**TEMPLATE, "split": "test"}),
    ],
)
def test_errors_are_those_in_memory(tmp_path: Path, labelled: bool, data: dict[str, Any]) -> None:
    path = file_of(tmp_path, ROWS)
    with pytest.raises(DataError) as in_memory:
        load_rows(DataConfig(path=path, **data), data_root=None, labelled=labelled)
    config = DataConfig(path=path, streaming=True, **data)
    with pytest.raises(DataError) as streamed:
        stream_rows(config, data_root=None, labelled=labelled, source="", problem_type=None)
    assert str(streamed.value) == str(in_memory.value)

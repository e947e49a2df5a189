"""Which file of a folder the static check reads."""

from __future__ import annotations

import json

import pytest

from hpotune.config.rows.local_samples import local_sample
from hpotune.config.schema.data_config import DataConfig

CARD = """---
configs:
- config_name: main
  data_files: [{split: train, path: parts/a*.jsonl}, {split: test, path: [b.csv]}]
- config_name: odd
  sep: ;
  data_files: [{split: train, path: b.csv}]
---
# Rows
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a-0.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "b.csv").write_text("b\n2\n")
    (tmp_path / "train.jsonl").write_text('{"c": 3}\n')
    return tmp_path


def columns(folder, **data):
    found = local_sample(DataConfig(path=str(folder), **data), None)
    return found and list(found[0][0])


def test_name_starts_with_the_split(folder):
    assert columns(folder) == ["c"]
    assert columns(folder, split="test") is None


@pytest.mark.parametrize(
    ("name", "split", "names"),
    [
        ("main", "train", ["a"]),
        ("main", "test[:5]", ["b"]),
        ("main", "other", None),
        ("odd", "train", None),
        (None, "train", None),
    ],
)
def test_card_says_which_file(folder, name, split, names):
    (folder / "README.md").write_text(CARD)
    assert columns(folder, name=name, split=split) == names


def test_only_file_is_the_training_split(tmp_path):
    (tmp_path / "rows.csv").write_text("a\n")
    assert columns(tmp_path) == ["a"]


def test_saved_folders_describe_their_columns(tmp_path):
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "answer": {"text": {"dtype": "string", "_type": "Value"}, "spans": {"feature": {}, "_type": "List"}},
        "old": {"feature": {"x": {"dtype": "string", "_type": "Value"}}, "_type": "Sequence"},
    }
    for folder in (tmp_path, tmp_path / "both" / "train"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.json").write_text("{}")
        (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    row = {"text": None, "answer": {"text": None, "spans": None}, "old": {"x": None}}
    for path in (tmp_path, tmp_path / "both"):
        found = local_sample(DataConfig(path=str(path)), None)
        assert found is not None
        assert found[0] == [row]

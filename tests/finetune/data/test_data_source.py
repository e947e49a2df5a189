"""Which rows a study's data is: files, folders, saved datasets; and whose mistake a failure names."""

from __future__ import annotations

import gzip
import json

import datasets
import pytest

from hpotune.config.schema.data_config import DataConfig
from hpotune.errors import inner_reason
from hpotune.finetune.data.data_source import split_table
from hpotune.finetune.trial_errors import DataError

ROWS = [
    {"input": f"m{n}", "output": word} for n, word in enumerate(["007", "1.50", "None", "true", "2024-01-31"])
]


def read(path, split="train", **config):
    return split_table(DataConfig(path=str(path), **config), split=split, data_root=None)


def rows_of(path, split="train", **config):
    table = read(path, split, **config)
    return table.take(range(table.count))


def write_jsonl(file, rows=ROWS):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_csv(file, rows=ROWS, sign=","):
    file.write_text(
        "\n".join(sign.join(row) for row in [rows[0].keys(), *(row.values() for row in rows)]) + "\n"
    )


@pytest.mark.parametrize("write", [write_jsonl, write_csv], ids=["jsonl", "csv"])
def test_folder_rows_are_as_written(write, tmp_path):
    ending = write.__name__.removeprefix("write_")
    write(tmp_path / f"train-0.{ending}", ROWS[:2])
    write(tmp_path / f"train-1.{ending}", ROWS[2:])
    assert rows_of(tmp_path) == ROWS


def test_other_splits_are_not_read(tmp_path):
    write_jsonl(tmp_path / "train.jsonl")
    write_jsonl(tmp_path / "test.jsonl", [{"input": "x", "output": {"a": 1}, "more": [1]}])
    (tmp_path / "validation.jsonl").write_text("no json\n")
    assert rows_of(tmp_path) == ROWS
    assert read(tmp_path, "test").columns == ["input", "output", "more"]


def test_parquet_splits_may_differ(tmp_path):
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "train.parquet")
    datasets.Dataset.from_list([{"other": 1}]).to_parquet(tmp_path / "test.parquet")
    assert rows_of(tmp_path) == ROWS
    assert rows_of(tmp_path, "test") == [{"other": 1}]


def test_parquet_files_may_differ(tmp_path):
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "train-0.parquet")
    datasets.Dataset.from_list([{"more": 1, "output": {"a": 0.5}}]).to_parquet(tmp_path / "train-1.parquet")
    table = read(tmp_path)
    assert table.columns == ["input", "output", "more"]
    assert table.take([5, 0, 5]) == [
        {"input": None, "output": {"a": 0.5}, "more": 1},
        ROWS[0] | {"more": None},
        {"input": None, "output": {"a": 0.5}, "more": 1},
    ]


def test_absent_split_names_the_others(tmp_path):
    write_csv(tmp_path / "train.csv")
    with pytest.raises(DataError, match="data.split: no split 'tain'; did you mean 'train'?"):
        read(tmp_path, "tain")


def test_saved_dataset_is_read(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "ds")
    assert rows_of(tmp_path / "ds") == ROWS
    with pytest.raises(DataError, match="data.split: 'test': .* holds one split, train"):
        read(tmp_path / "ds", "test")


def test_saved_splits_are_read(tmp_path):
    both = datasets.DatasetDict(
        train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list([{"a": 1}])
    )
    both.save_to_disk(tmp_path / "ds")
    assert rows_of(tmp_path / "ds") == ROWS
    assert rows_of(tmp_path / "ds", "test") == [{"a": 1}]
    with pytest.raises(DataError, match="data.split: no split 'tets'; did you mean 'test'?"):
        read(tmp_path / "ds", "tets")


def test_saved_rows_keep_order_and_types(tmp_path):
    mixed = [{"output": {"a": 1}}, {"output": {"b": [None, 1.5]}}]
    data = datasets.Dataset.from_list(mixed, on_mixed_types="use_json").select([1, 0])
    data.save_to_disk(tmp_path / "ds")
    assert rows_of(tmp_path / "ds") == mixed[::-1]


def test_compressed_files_are_read(tmp_path):
    with gzip.open(tmp_path / "train.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in ROWS))
    assert rows_of(tmp_path) == ROWS


CARD = """---
configs:
- config_name: default
  data_files: [{split: train, path: rows.*}]
  %s
dataset_info:
- config_name: default
  features: [{name: text, dtype: string}, {name: label, dtype: {class_label: {names: {'0': top, '1': low}}}}]
---
"""


def test_card_options_are_followed(tmp_path):
    (tmp_path / "README.md").write_text(CARD % 'sep: "^"')
    write_csv(
        tmp_path / "rows.csv", [{"text": "a,b", "label": "low"}, {"text": "007", "label": "0"}], sign="^"
    )
    table = read(tmp_path)
    assert table.take([0, 1]) == [{"text": "a,b", "label": "low"}, {"text": "007", "label": "0"}]
    assert table.class_names == {"label": ["top", "low"]}


def test_card_names_field_and_columns(tmp_path):
    (tmp_path / "README.md").write_text(CARD % "field: data")
    (tmp_path / "rows.json").write_text(json.dumps({"data": [{"text": "007", "label": 1}]}))
    assert rows_of(tmp_path) == [{"text": "007", "label": 1}]
    (tmp_path / "README.md").write_text(CARD % "names: [text, label]")
    (tmp_path / "rows.json").unlink()
    (tmp_path / "rows.csv").write_text("007,1\n")
    assert rows_of(tmp_path) == [{"text": "007", "label": "1"}]


def test_other_card_options_are_refused(tmp_path):
    (tmp_path / "README.md").write_text(CARD % "skiprows: 1")
    write_csv(tmp_path / "rows.csv")
    with pytest.raises(DataError, match=r"data.path: the card of .* sets skiprows, which is not followed"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train.jsonl", '{"a": 1}\n' * 8 + '{"a": }\n', "train.jsonl: line 9 (row 8): Expecting value"),
        ("train.csv", 'a,b\n"x,y\n', "train.csv: line 2: a cell opens with a quote"),
        ("train.parquet", "PAR1", "(train): "),
        ("train.csv", "a\nfür\n".encode("latin-1"), "train.csv: line 2: is not UTF-8"),
    ],
)
def test_failure_names_file_and_reason(name, content, reason, tmp_path):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(DataError) as error:
            read(path)
        assert str(error.value).startswith(f"data.path: {tmp_path}")
        assert "An error occurred" not in str(error.value)
        assert reason in str(error.value) or "not Parquet" in str(error.value)


def test_reason_of_a_library_is_named(tmp_path):
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 100)[:-9])
    with pytest.raises(DataError, match=r"^data.path: .* \(train\): Compressed file ended before the end"):
        read(tmp_path)


def test_innermost_cause_is_the_reason():
    outer = ValueError("An error occurred\nwhile  generating")
    assert inner_reason(outer) == "An error occurred while generating"
    outer.__cause__ = KeyError("role")
    assert inner_reason(outer) == "'role'"
    assert inner_reason(StopIteration()) == "StopIteration"
    assert inner_reason(ValueError("x" * 400)) == "x" * 300 + " ..."


def test_name_of_an_absent_configuration(tmp_path):
    (tmp_path / "README.md").write_text(CARD % "default: true")
    write_csv(tmp_path / "rows.csv")
    with pytest.raises(
        DataError, match=r"data.path: .*BuilderConfig 'main' not found. Available: \['default'\]"
    ):
        read(tmp_path, name="main")

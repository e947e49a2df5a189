from __future__ import annotations

import json

import pytest

from hpotune.config.schema.study_config import DataConfig
from hpotune.finetune.data.dataset import load_rows
from hpotune.finetune.trial_errors import DataError


@pytest.fixture
def sorted_file(tmp_path):
    """100 rows, the first half of them `neg`, as public sets are."""
    file = tmp_path / "sorted.jsonl"
    rows = [{"text": f"row {i}", "label": "neg" if i < 50 else "pos", "other": i} for i in range(100)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def split_rows(file, *, labelled=True, data_root=None, **config):
    config = {"validation": 0, "prompt": "text"} | config
    return load_rows(DataConfig(path=str(file), **config), data_root=data_root, labelled=labelled)


def test_slice_is_taken_after_shuffling(sorted_file):
    found = split_rows(sorted_file, split="train[:20]")
    assert len(found.train) == 20
    assert {row.values["label"] for row in found.train} == {0, 1}
    assert found.warnings == []


@pytest.mark.parametrize(
    ("split", "rows"),
    [("train[10%:30%]", 20), ("train[-5:]", 5), ("train[:-90]", 10), ("train[:3] + train[3:9]", 9)],
)
def test_slices_by_percent_end_and_sum(sorted_file, split, rows):
    found = [row.values["other"] for row in split_rows(sorted_file, split=split).train]
    assert len(set(found)) == len(found) == rows


def test_rows_depend_on_the_seed(sorted_file):
    one, same, other = (split_rows(sorted_file, rows=30, validation=0.2, seed=seed) for seed in (0, 0, 1))
    assert (len(one.train), len(one.validation)) == (24, 6)
    assert one == same
    assert one.train != other.train


def test_validation_is_not_trained_on(sorted_file):
    found = split_rows(sorted_file, validation=10)
    kept = {row.values["other"] for row in found.validation}
    assert len(kept) == 10
    assert kept.isdisjoint(row.values["other"] for row in found.train)


def test_validation_of_all_is_an_error(sorted_file):
    with pytest.raises(DataError, match="leaves none for training"):
        split_rows(sorted_file, validation=100)


def test_single_label_gives_warning(tmp_path):
    file = tmp_path / "one.jsonl"
    file.write_text('{"text": "a", "label": 1}\n' * 4)
    assert "have the label 0: nothing can be learned" in split_rows(file).warnings[0]


def test_text_labels_are_numbered_sorted(sorted_file):
    found = split_rows(sorted_file)
    assert found.num_labels == 2
    assert all(row.values["label"] == (row.values["other"] >= 50) for row in found.train)


def test_columns_are_renamed(sorted_file):
    row = split_rows(sorted_file, labelled=False, columns={"output": "text", "text": "label"}).train[0]
    assert row.values["output"].startswith("row")
    assert row.values["text"] in ("neg", "pos")


def test_missing_renamed_column_is_an_error(sorted_file):
    with pytest.raises(DataError, match=r"no column 'nope'; the data has text, label, other"):
        split_rows(sorted_file, columns={"output": "nope"})


@pytest.mark.parametrize(("name", "part"), [("missing.jsonl", "missing.jsonl"), ("data.txt", "endings")])
def test_unreadable_data_is_an_error(tmp_path, name, part, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    (tmp_path / "data.txt").write_text("x")
    with pytest.raises(DataError, match=part):
        split_rows(tmp_path / name)


def test_missing_split_is_an_error(sorted_file):
    with pytest.raises(DataError, match="train"):
        split_rows(sorted_file, split="test")


def test_csv_and_parquet_are_read(tmp_path, sorted_file):
    import pandas

    table = pandas.read_json(sorted_file, lines=True)
    table.to_csv(tmp_path / "rows.csv", index=False)
    table.to_parquet(tmp_path / "rows.parquet")
    wanted = split_rows(sorted_file).train
    assert split_rows(tmp_path / "rows.csv").train == wanted
    assert split_rows(tmp_path / "rows.parquet").train == wanted


def test_data_root_rows_are_never_outdated(tmp_path):
    folder = tmp_path / "some" / "set"
    folder.mkdir(parents=True)
    card = (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: rows.jsonl\n---\n"
    )
    (folder / "README.md").write_text(card)
    for word in ("old", "new"):
        (folder / "rows.jsonl").write_text(json.dumps({"text": word}) + "\n")
        found = split_rows("some/set", data_root=str(tmp_path), labelled=False)
        assert [row.values for row in found.train] == [{"text": word}]

from __future__ import annotations

import json
from dataclasses import replace

import datasets
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
    assert split_rows(file).warnings == ["all 4 training rows have the label 1: nothing can be learned"]


def test_text_labels_are_numbered_sorted(sorted_file):
    found = split_rows(sorted_file)
    assert found.num_labels == 2
    assert all(row.values["label"] == (row.values["other"] >= 50) for row in found.train)


def test_columns_are_renamed(sorted_file):
    row = split_rows(sorted_file, labelled=False, columns={"output": "text", "text": "label"}).train[0]
    assert row.values["output"].startswith("row")
    assert row.values["text"] in ("neg", "pos")


def test_missing_renamed_column_is_an_error(sorted_file):
    with pytest.raises(DataError, match=r"data.columns.output: column 'nope' is not in the data; valid: "):
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
    assert split_rows(tmp_path / "rows.parquet").train == wanted
    text = [replace(row, values=row.values | {"other": str(row.values["other"])}) for row in wanted]
    assert split_rows(tmp_path / "rows.csv").train == text


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


def write_rows(folder, name, rows):
    """The rows as a file; its ending says how."""
    import pandas

    file = folder / name
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        getattr(pandas.DataFrame(rows, dtype=object), f"to_{file.suffix[1:]}")(file, index=False)
    return file


def test_numbers_are_positions_in_the_split(sorted_file):
    found = split_rows(sorted_file, labelled=False, split="train[:30%] + train[90%:]", prompt="{other}")
    assert len(found.train) == 40
    assert all(row.number == row.values["other"] for row in found.train)


def test_columns_of_all_parts_are_kept(tmp_path):
    write_rows(tmp_path, "train.jsonl", [{"text": "a"}] * 3)
    write_rows(tmp_path, "test.jsonl", [{"text": "b", "more": 1}] * 2)
    found = split_rows(tmp_path, labelled=False, split="train+test").train
    assert sorted((row.values["text"], row.values["more"], row.number) for row in found if row.number < 2) == [
        ("a", None, 0), ("a", None, 1), ("b", 1, 0), ("b", 1, 1)
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_missing_and_empty_are_counted(name, tmp_path):
    answers = ["red", "", "None", "red"]
    rows = [{"input": f"m{n}", "output": answer} for n, answer in enumerate(answers)]
    file = write_rows(tmp_path, name, rows)
    if name == "rows.csv":
        file.write_text(file.read_text() + "m4\n")  # a short row
    elif name == "rows.jsonl":
        file.write_text(file.read_text() + '{"input": "m4"}\n{"output": "red"}\n')
    else:
        write_rows(tmp_path, name, [*rows, {"input": "m4", "output": None}, {"input": None, "output": "red"}])
    found = split_rows(file, labelled=False, prompt="{input}:", response=" {output}")
    rows = 5 if name == "rows.csv" else 6
    assert [warning for warning in found.warnings if "'output'" in warning] == [
        f"column 'output' is missing (null) in 1 of {rows} rows; these rows are left out",
        f"column 'output' is empty text in 1 of {rows} rows; trained as it is",
    ]
    assert [warning for warning in found.warnings if "'input'" in warning] == (
        [] if rows == 5 else ["column 'input' is missing (null) in 1 of 6 rows; read as empty text"]
    )


def test_empty_alpaca_input_is_usual(tmp_path):
    file = write_rows(tmp_path, "rows.jsonl", [{"instruction": "x", "input": "", "output": "y"}] * 2)
    assert split_rows(file, labelled=False, prompt="alpaca").warnings == []


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {"response": " {ouput}"},
            "data.response: column 'ouput' is not in the data; did you mean 'output'?",
        ),
        (
            {"response": " {output.text}"},
            "data.response: column 'output.text' is not in the data; did you mean",
        ),
        ({"response": " {output-clean}"}, "data.response: column 'output-clean' is not in the data"),
        ({"prompt": "{in}"}, "data.prompt: column 'in' is not in the data"),
        ({"prompt": "alpaca", "response": None}, "data.prompt: column 'instruction' is not in the data"),
        ({"prompt": "chat", "response": None}, "data.prompt: chat needs the column messages"),
        ({"columns": {"output": "a.b"}}, "data.columns.output: column 'a.b' is not in the data"),
    ],
)
def test_trial_names_columns_as_check(config, says, tmp_path):
    file = write_rows(tmp_path, "rows.jsonl", [{"input": "x", "output": "red"}] * 3)
    with pytest.raises(DataError) as error:
        split_rows(file, labelled=False, **{"prompt": "{input}", "response": " {output}", **config})
    assert str(error.value).startswith(says)


def test_fields_are_renamed(tmp_path):
    rows = [{"q": {"text": "x"}, "a": [1, {"b": None}]}] * 2
    found = split_rows(write_rows(tmp_path, "rows.jsonl", rows), labelled=False, columns={"text": "q.text"})
    assert found.train[0].values["text"] == "x"


def test_file_without_rows_is_an_error(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n")
    with pytest.raises(DataError, match="rows.csv has no rows in train"):
        split_rows(tmp_path / "rows.csv")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_rows_without_label_keep_none(kind, tmp_path):
    labels = ["red", "None", "", "blue"]
    file = write_rows(
        tmp_path, f"rows.{kind}", [{"text": f"t{n}", "label": n_} for n, n_ in enumerate(labels)]
    )
    found = split_rows(file)
    assert found.labels == ["None", "blue", "red"]
    assert {row.number: row.values["label"] for row in found.train} == {0: 2, 1: 0, 2: None, 3: 1}
    assert found.warnings == ["column 'label' is empty text in 1 of 4 rows; these rows are left out"]


def test_class_names_keep_parquets_order(tmp_path):
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["top", "low"])}
    )
    data = datasets.Dataset.from_dict({"text": list("abc"), "label": [1, 0, -1]}, features=features)
    data.to_parquet(tmp_path / "rows.parquet")
    found = split_rows(tmp_path / "rows.parquet")
    assert found.labels == ["top", "low"]
    assert {row.number: row.values["label"] for row in found.train} == {0: 1, 1: 0, 2: None}


def class_label_set(texts, numbers, names):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    return datasets.Dataset.from_dict({"text": texts, "label": numbers}, features=features)


ONE = class_label_set(["a top", "a low", "no label"], [0, 1, -1], ["top", "low"])
OTHER = class_label_set(["b low", "b mid", "b top"], [0, 1, 2], ["low", "mid", "top"])


def named_labels(found):
    return {
        row.values["text"]: found.labels[row.values["label"]]
        for row in found.train
        if row.values["label"] is not None
    }


RIGHT = {"a top": "top", "a low": "low", "b low": "low", "b mid": "mid", "b top": "top"}


def test_classes_of_splits_match_by_name(tmp_path):
    datasets.DatasetDict({"train": ONE, "more": OTHER}).save_to_disk(tmp_path / "saved")
    for split in ("train+more", "more+train"):
        assert named_labels(split_rows(tmp_path / "saved", split=split)) == RIGHT


def test_classes_of_files_match_by_name(tmp_path):
    ONE.to_parquet(tmp_path / "train-0.parquet")
    OTHER.to_parquet(tmp_path / "train-1.parquet")
    assert named_labels(split_rows(tmp_path)) == RIGHT


def test_numbers_without_class_names_are_refused(tmp_path):
    plain = datasets.Dataset.from_dict({"text": ["c"], "label": [0]})
    datasets.DatasetDict({"train": ONE, "more": plain}).save_to_disk(tmp_path / "saved")
    with pytest.raises(
        DataError, match=r"data.split: train\+more: the column 'label' has class names \(top, low\)"
    ):
        split_rows(tmp_path / "saved", split="train+more")


def test_files_of_other_formats_are_named(tmp_path):
    for name in ("train-0.jsonl", "train-1.jsonl"):
        (tmp_path / name).write_text('{"text": "a"}\n')
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert split_rows(tmp_path, labelled=False).warnings == []
    (tmp_path / "train-2.csv").write_text("text\nb\n")
    (warning,) = split_rows(tmp_path, labelled=False).warnings
    assert warning.endswith("are not read: train-2.csv; convert them to json")

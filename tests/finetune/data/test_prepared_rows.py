"""The rows that a rehearsal keeps are those that a trial would make, and are found only while nothing has changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpotune.config.schema.study_config import DataConfig, ModelConfig
from hpotune.finetune.data.prepared_rows import TokenizedSplit, find_prepared, prepared_key, write_prepared
from hpotune.finetune.inputs import load_inputs, load_split, tokenize_split
from hpotune.finetune.model.base_model import load_tokenizer
from tests.fixtures.tiny_trials import home as home

SHORT = {"prompt": "{input} Topic: ", "response": "{output}", "validation": 8}


@pytest.fixture
def rows(home: Path, tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_bytes((home / "rows.jsonl").read_bytes())
    return file


def made(home: Path, rows: Path, folder: Path, **data: object) -> tuple[str, TokenizedSplit]:
    """The key and the rows of a study, written into the folder."""
    model, config = ModelConfig(path=str(home / "model")), DataConfig(path=str(rows), **SHORT | data)
    tokenizer = load_tokenizer(model)
    key = prepared_key(model, config, tokenizer, data_root=None)
    assert key is not None
    split = tokenize_split(*load_split(model, config, data_root=None), config, tokenizer)
    write_prepared(folder, key, split)
    return key, split


def tokens(split: TokenizedSplit) -> list[object]:
    """All that a trial uses of the rows."""
    parts = (split.train, split.validation)
    used = [[(row.number, row.tokens, row.is_cut, row.lost_answers) for row in part.used] for part in parts]
    return [used, [part.left_out for part in parts], split.labels, split.warnings]


@pytest.mark.parametrize("length", [512, 24])
def test_kept_rows_are_the_trials_rows(home: Path, rows: Path, tmp_path: Path, length: int) -> None:
    key, split = made(home, rows, tmp_path / "prepared", max_length=length)
    kept = find_prepared(tmp_path / "prepared", key)
    assert kept is not None
    assert tokens(kept) == tokens(split)


@pytest.mark.parametrize(
    ("kind", "label"), [("multi_label_classification", [[], ["a", "b"]]), ("regression", [0.25, -3])]
)
def test_labels_of_all_kinds_are_kept(home: Path, tmp_path: Path, kind: str, label: list[object]) -> None:
    file = tmp_path / "rows.jsonl"
    texts = ["a drum", "a whale", "a comet", "an oven"]
    file.write_text(
        "".join(json.dumps({"text": t, "label": label[n % 2]}) + "\n" for n, t in enumerate(texts))
    )
    model = ModelConfig(path=str(home / "model"), task="sequence_classification", problem_type=kind)
    config = DataConfig(path=str(file), prompt="text", validation=2)
    tokenizer = load_tokenizer(model)
    key, one_class = (
        prepared_key(of, config, tokenizer, data_root=None)
        for of in (model, model.model_copy(update={"problem_type": None}))
    )
    assert key != one_class
    split = tokenize_split(*load_split(model, config, data_root=None), config, tokenizer)
    write_prepared(tmp_path / "prepared", str(key), split)
    kept = find_prepared(tmp_path / "prepared", str(key))
    assert kept is not None
    assert tokens(kept) == tokens(split)
    found = {row.number if kind == "regression" else row.classes for row in split.both.rows}
    assert found == ({0.25, -3.0} if kind == "regression" else {(), (0, 1)})


def test_a_trial_reads_the_kept_rows(home: Path, rows: Path, tmp_path: Path) -> None:
    key, split = made(home, rows, tmp_path / "prepared")
    model, config = ModelConfig(path=str(home / "model")), DataConfig(path=str(rows), **SHORT)
    fewer = TokenizedSplit(
        train=split.validation, validation=split.validation, labels=None, warnings=["these were kept"]
    )
    write_prepared(tmp_path / "prepared", key, fewer)
    loaded = load_inputs(model, config, data_root=None, prepared=tmp_path / "prepared")
    assert tokens(loaded.split) == tokens(fewer)


def test_changed_content_has_another_key(home: Path, rows: Path, tmp_path: Path) -> None:
    keys = {made(home, rows, tmp_path, **change)[0] for change in ({}, {"max_length": 64}, {"seed": 1})}
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[0] + "\n")
    keys.add(made(home, rows, tmp_path)[0])
    assert len(keys) == 4


def test_damaged_rows_are_not_used(home: Path, rows: Path, tmp_path: Path) -> None:
    key, _ = made(home, rows, tmp_path)
    file = tmp_path / f"{key}.npz"
    file.write_bytes(file.read_bytes()[:200])
    assert find_prepared(tmp_path, key) is None
    assert find_prepared(tmp_path / "nowhere", key) is None

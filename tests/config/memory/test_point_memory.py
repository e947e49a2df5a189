"""The memory at the points of a space, and the choice of micro-batch and checkpointing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hpotune.config.load import Study, load_study
from hpotune.config.memory.memory_estimate import Machine
from hpotune.config.memory.point_memory import (
    RowLengths,
    counted_lengths,
    largest_point,
    longest_rows,
    micro_batches,
)
from tests.config.memory.conftest import LLAMA_3B

GPU = Machine(gpu=True)


@pytest.fixture
def study(tmp_path: Path):
    """A study of the 3B model; keyword arguments replace keys of `train` and `lora`."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_3B))

    def made(train: dict, lora: dict, **sections: object) -> Study:
        values = {
            "name": "s",
            "model": {"path": str(tmp_path)},
            "data": {"path": "rows.jsonl"},
            "lora": {"r": 16, **lora},
            "train": {"learning_rate": 1e-4, **train},
            "score": {"objective": {"metric": "eval_loss"}},
            "budget": {"trials": 2},
            **sections,
        }
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(values))
        return load_study(tmp_path / "s.yaml")

    return made


def test_largest_values_are_found_together(study) -> None:
    ranges = {"r": {"int": [4, 64]}}, {"per_device_train_batch_size": {"choice": [2, 16, 4]}}
    limits = ["lora.r * train.per_device_train_batch_size <= 64"]
    point, most = largest_point(study(ranges[1], ranges[0], constraints=limits), longest_rows, machine=GPU)
    assert (point.lora["r"], point.train["per_device_train_batch_size"]) == (64, 16)
    _, same = largest_point(study({"per_device_train_batch_size": 16}, {"r": 64}), longest_rows, machine=GPU)
    assert most.estimate == same.estimate


def test_rows_bound_the_counted_tokens() -> None:
    ignored = [[-100, -100, 5], [-100, 5, 5, 5], [-100, -100, -100]]
    counted = counted_lengths(ignored, ignored=-100, most=2)
    assert counted == (3, 1)
    rows = RowLengths(longest=4, counted=counted)
    assert (rows.counted_in(1), rows.counted_in(2), rows.counted_in(5)) == (3, 4, 7)


def test_micro_batches_are_powers_of_two() -> None:
    auto = {"per_device_train_batch_size": "auto", "global_batch_size": 12}
    assert micro_batches(auto, ranks=1) == [12, 8, 4, 2, 1]
    assert micro_batches(auto, ranks=2) == [6, 4, 2, 1]
    assert micro_batches({"per_device_train_batch_size": 16, "global_batch_size": 12}, ranks=1) == [12]

"""Item scores are read, or count as missing where their file is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpotune.workspace.item_file import read_items

NAMES = ["toy/doc_id", "toy/acc"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "items.npz"
    np.savez(path, **{"toy/doc_id": np.arange(3), "toy/acc": np.array([0.0, 1.0, 1.0])})
    return path


def test_arrays_are_read(file):
    ids, scores = read_items(file, NAMES)
    assert ids.tolist() == [0, 1, 2]
    assert scores.tolist() == [0.0, 1.0, 1.0]


def test_unknown_array_is_none(file):
    assert read_items(file, ["toy/f1"]) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "missing"])
def test_damaged_file_is_none(file, damage):
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        flipped = bytes(byte ^ 255 for byte in content[60:200])
        changed = {
            "cut": content[:150],
            "flipped": content[:60] + flipped + content[200:],
            "empty": b"",
            "text": b"no",
        }
        file.write_bytes(changed[damage])
    assert read_items(file, NAMES) is None


@pytest.mark.parametrize(
    "scores", [np.array(["a", "b", "c"]), np.zeros((3, 2)), np.zeros(2), np.array([{}, None, 1])]
)
def test_other_arrays_are_none(file, scores):
    np.savez(file, **{"toy/doc_id": np.arange(3), "toy/acc": scores})
    assert read_items(file, NAMES) is None

"""Rows in a file of tokens: what was written is read, and what is not complete is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpotune.finetune.data.stored_sequence import joined, selected
from hpotune.finetune.data.token_file import TokenFile, TokenFileWriter
from hpotune.finetune.data.tokenization import LeftOutRow, TokenizedRow, tokens_of
from hpotune.finetune.training.loss import Row, row_lengths

ROWS: list[TokenizedRow | LeftOutRow] = [
    TokenizedRow(number=7, pieces=[], tokens=Row(ids=[5, 6, 70_000], targets=[-100, 6, 70_000]), is_cut=True),
    LeftOutRow(number=2, reason="odd", source="b"),
    TokenizedRow(
        number=1, pieces=[], tokens=Row(ids=[3], targets=[0], classes=(0, 4)), is_cut=False, source="b"
    ),
    TokenizedRow(number=3, pieces=[], tokens=Row(ids=[9, 9], targets=[0], classes=()), is_cut=False),
    TokenizedRow(
        number=2**40, pieces=[], tokens=Row(ids=[1], targets=[0], number=-0.25), is_cut=False, lost_answers=2
    ),
]


def write(path: Path) -> TokenFile:
    writer = TokenFileWriter(path)
    for row in ROWS:
        writer.add(row, number=row.number)
    train, none = np.array([4, 0, 3]), np.empty(0, dtype=np.int64)
    orders = {"train": train, "train left out": np.array([1]), "validation": np.array([2])}
    file = writer.finish({"labels": None}, {**orders, "validation left out": none})
    writer.close()
    return file


def test_rows_are_read_in_their_order(tmp_path: Path) -> None:
    write(tmp_path / "k.tokens")
    file = TokenFile(tmp_path / "k.tokens")
    train, validation = file.rows("train"), file.rows("validation")
    assert list(train.used) == [ROWS[4], ROWS[0], ROWS[3]]
    assert (train.used[-1], train.used[1:]) == (ROWS[3], [ROWS[0], ROWS[3]])
    assert (list(train.left_out), list(validation.used)) == ([ROWS[1]], [ROWS[2]])
    assert list(validation.left_out) == []
    assert list(train.rows) == [row.tokens for row in train.used]
    assert row_lengths(train.rows) == [1, 3, 2]
    assert train.cut_numbers == [7]
    assert (file.about["longest"], file.about["largest_id"]) == (3, 70_000)
    assert [path.name for path in tmp_path.iterdir()] == ["k.tokens"]


def test_parts_are_chosen_and_joined(tmp_path: Path) -> None:
    file = write(tmp_path / "k.tokens")
    train, validation = file.rows("train").used, file.rows("validation").used
    again = selected(train, np.array([2, 2, 0]))
    assert list(again) == [ROWS[3], ROWS[3], ROWS[4]]
    assert list(joined(again, validation)) == [ROWS[3], ROWS[3], ROWS[4], ROWS[2]]
    assert list(tokens_of(again)) == [row.tokens for row in again]
    in_memory = selected(list(train), np.array([1]))
    assert joined(in_memory, [ROWS[4]]) == [ROWS[0], ROWS[4]]
    assert validation.of_source("b").tolist() == [0]
    assert train.of_source("b").tolist() == train.of_source("nowhere").tolist() == []


@pytest.mark.parametrize("kept", [0, 10, -1])
def test_file_without_an_end_is_refused(tmp_path: Path, kept: int) -> None:
    write(tmp_path / "k.tokens")
    content = (tmp_path / "k.tokens").read_bytes()
    (tmp_path / "k.tokens").write_bytes(content[:kept])
    with pytest.raises(ValueError, match=r"k\.tokens: (is too short|has no end)"):
        TokenFile(tmp_path / "k.tokens")


def test_open_file_outlives_its_name(tmp_path: Path) -> None:
    file = write(tmp_path / "k.tokens")
    (tmp_path / "k.tokens").unlink()
    assert list(file.rows("validation").used) == [ROWS[2]]


def test_unfinished_files_are_removed(tmp_path: Path) -> None:
    writer = TokenFileWriter(tmp_path / "k.tokens")
    writer.add(ROWS[0], number=7)
    writer.close()
    assert list(tmp_path.iterdir()) == []

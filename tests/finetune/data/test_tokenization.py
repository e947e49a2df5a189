"""Rows that are used, cut, or left out with a reason; warnings and the share of rows that may be left out."""

from __future__ import annotations

import pytest

from hpotune.config.schema.study_config import DataConfig
from hpotune.finetune.data.dataset import DataRow, DataSplit
from hpotune.finetune.data.tokenization import (
    NO_TOKEN,
    NOTHING_COUNTED,
    ROWS_AT_ONCE,
    TOO_LONG,
    LeftOutRow,
    TokenizedRows,
    tokenize_rows,
)
from hpotune.finetune.inputs import tokenize_split
from hpotune.finetune.trial_errors import DataError
from tests.fixtures.tiny_model import tiny_tokenizer

TEMPLATE = {"prompt": "Q: {q}\n", "response": "{a}"}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def tokenized(rows, tokenizer, *, labelled=False, progress=None, **config) -> TokenizedRows:
    """The rows, numbered from 0."""
    numbered = [DataRow(number=number, values=row) for number, row in enumerate(rows)]
    settings = DataConfig(path="x", **config)
    return tokenize_rows(numbered, settings, tokenizer, labelled=labelled, progress=progress)


def left_out(*reasons: str) -> TokenizedRows:
    """Rows that are left out for these reasons, numbered from 0."""
    rows = [LeftOutRow(number=number, reason=reason) for number, reason in enumerate(reasons)]
    return TokenizedRows(used=[], left_out=rows)


def test_a_row_has_its_text(tokenizer) -> None:
    row = tokenized([{"q": "whale", "a": "ocean"}], tokenizer, **TEMPLATE).used[0]
    assert (row.text, row.counted) == ("Q: whale\nocean", "ocean")


@pytest.mark.parametrize("labelled", [False, True])
def test_row_that_fits_is_uncut(tokenizer, labelled: bool) -> None:
    rows = [{"text": "ab" * 40, "label": 1}]
    whole = tokenized(rows, tokenizer, labelled=labelled, prompt="text").used[0]
    length = len(whole.tokens.ids)
    fits = tokenized(rows, tokenizer, labelled=labelled, prompt="text", max_length=length)
    cut = tokenized(rows, tokenizer, labelled=labelled, prompt="text", max_length=length - 1)
    assert (len(fits.cut_numbers), len(fits.rows[0].ids)) == (0, length)
    assert (len(cut.cut_numbers), len(cut.rows[0].ids)) == (1, length - 1)


def test_left_out_rows_have_their_reason(tokenizer) -> None:
    rows = [
        {"q": "whale " * 100, "a": "ocean"},
        {"q": "whale", "a": "ocean"},
        {"q": "\ud800", "a": "ocean"},
    ]
    found = tokenized(rows, tokenizer, max_length=64, **TEMPLATE)
    assert [row.number for row in found.used] == [1]
    assert {row.number: row.reason for row in found.left_out} == {
        0: TOO_LONG,
        2: "the text holds the surrogate U+D800, which is half a character",
    }


def test_text_without_token_is_left_out(tokenizer) -> None:
    rows = [{"text": "whale", "label": 0}, {"text": "", "label": 1}]
    found = tokenized(rows, tokenizer, labelled=True, prompt="{text}")
    assert [row.tokens.targets for row in found.used] == [[0]]
    assert found.left_out == [LeftOutRow(number=1, reason=NO_TOKEN)]


def test_row_of_one_token_is_unused(tokenizer) -> None:
    bare = tiny_tokenizer()
    bare.eos_token = None
    rows = [{"q": "whale"}, {"q": "w"}]
    found = tokenized(rows, bare, prompt="{q}")
    assert found.left_out == [LeftOutRow(number=1, reason=NOTHING_COUNTED)]


def test_max_length_alone_is_named(tokenizer) -> None:
    rows = [{"q": "whale " * 100, "a": "ocean"}] * 2
    with pytest.raises(DataError, match=r"data\.max_length: 16 cuts off the whole answer of all 2 rows"):
        tokenized(rows, tokenizer, max_length=16, **TEMPLATE)


def test_no_usable_row_names_the_first(tokenizer) -> None:
    with pytest.raises(
        DataError,
        match=r"data\.path: all 2 rows are left out, 2 of them \(rows 0, 1\) for this reason: the text has no token",
    ):
        tokenized([{"text": "", "label": 0}] * 2, tokenizer, labelled=True, prompt="{text}")


def test_progress_counts_the_rows(tokenizer) -> None:
    done: list[int] = []
    tokenized([{"text": "whale"}] * (ROWS_AT_ONCE + 3), tokenizer, prompt="text", progress=done.append)
    assert done == [ROWS_AT_ONCE, ROWS_AT_ONCE + 3]


def test_warnings_group_rows_by_reason() -> None:
    rows = left_out(*["odd"] * 7, TOO_LONG, "rare", "a", "b", "c", "d")
    assert rows.report.warnings == [
        "7 rows are left out (rows 0, 1, 2, 3, 4 and 2 more): odd",
        f"1 row is left out (row 7): {TOO_LONG}",
        "1 row is left out (row 8): rare",
        "1 row is left out (row 9): a",
        "1 row is left out (row 10): b",
        "2 rows are left out for other reasons; see hpotune preview",
    ]


@pytest.mark.parametrize(
    ("odd", "long", "share", "refused"),
    [(1, 0, 0.1, False), (2, 0, 0.1, True), (1, 0, 0, True), (0, 9, 0, False), (9, 0, 1, False)],
)
def test_the_share_left_out_is_limited(tokenizer, odd: int, long: int, share: float, refused: bool) -> None:
    used = tokenized([{"text": "whale"}] * (10 - odd), tokenizer, prompt="text")
    rows = used + left_out(*["odd"] * odd, *[TOO_LONG] * long)
    config = DataConfig(path="x", max_left_out=share)
    if refused:
        with pytest.raises(DataError, match=rf"data\.max_left_out: {odd} of 10 rows .*rows? 0.*: odd; "):
            rows.report.check_left_out(config)
    else:
        rows.report.check_left_out(config)


def test_unusable_validation_rows_are_named(tokenizer) -> None:
    rows = DataSplit(
        train=[DataRow(number=0, values={"text": "whale coral"})],
        validation=[DataRow(number=1, values={"text": None})],
    )
    with pytest.raises(DataError, match=r"data\.path: all 1 validation rows are left out.*\(row 1\)"):
        tokenize_split(rows, None, DataConfig(path="x", prompt="text", response=None), tokenizer)

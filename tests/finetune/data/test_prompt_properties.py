"""The text that is counted is the value of the row, whatever the text, the JSON value, the column and the format."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from hpotune.config.rows.row_template import placeholders, template_mistake
from hpotune.config.schema.data_config import DataConfig
from hpotune.finetune.data.dataset import load_rows
from hpotune.finetune.data.tokenization import tokenize_rows
from hpotune.finetune.training.loss import IGNORED
from tests.fixtures.tiny_model import tiny_tokenizer

QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SPECIAL = ("<pad>", "<s>", "</s>")  # the tokenizer reads them as its own tokens
TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(
    lambda text: not any(s in text for s in SPECIAL)
)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    st.booleans() | NUMBERS | TEXTS,
    lambda inner: (
        st.lists(inner | st.none(), max_size=3) | st.dictionaries(TEXTS, inner | st.none(), max_size=3)
    ),
    max_leaves=5,
)
ODD_TEXTS = (
    "007",
    "1.50",
    "None",
    "NA",
    "true",
    "null",
    "1e5",
    "2024-01-31",
    " ",
    "\ufeff",
    "a\r\nb\rc",
    '"',
    "\x00",
)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def expected(value):
    """The rule, written again: text as it is, other values as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def write_csv(file: Path, rows: list[dict[str, str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(file: Path, rows: list[dict[str, object]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_json(file: Path, rows: list[dict[str, object]]) -> None:
    file.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def write_parquet(file: Path, rows: list[dict[str, object]]) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "json": write_json, "parquet": write_parquet}


def trained(file: Path, tokenizer, **config):
    """Row number -> (the counted text, the counted tokens as text); nothing for a row that is left out."""
    data = DataConfig(path=str(file), validation=0, max_length=4096, **config)
    rows = load_rows(data, data_root=None, labelled=False).train
    found = {}
    for row in tokenize_rows(rows, data, tokenizer, labelled=False).used:
        ids = [target for target in row.tokens.targets if target != IGNORED]
        assert ids[-1] == tokenizer.eos_token_id
        counted = "".join(text for text, is_counted in row.pieces if is_counted)
        found[row.number] = (counted, tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False))
    return found


def check_rows(values, name, kind, folder, tokenizer, *, renamed):
    """Write the values as a column, and compare what is trained of them; `renamed`: through data.columns."""
    rows = [{"number": str(n), name: value} for n, value in enumerate(values)]
    file = folder / f"rows.{kind}"
    WRITERS[kind](file, rows)
    config = (
        {"response": ">{output}", "columns": {"output": name}} if renamed else {"response": f">{{{name}}}"}
    )
    found = trained(file, tokenizer, prompt="{number}:", **config)
    wanted = {n: f">{expected(value)}" for n, value in enumerate(values)}
    assert found == {n: (text, text) for n, text in wanted.items()}


@pytest.mark.parametrize("kind", WRITERS)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
@example(texts=list(ODD_TEXTS))
@example(texts=[""])
@QUICK
def test_counted_text_is_the_cell(kind, texts, tmp_path, tokenizer):
    check_rows(texts, "output", kind, tmp_path, tokenizer, renamed=False)


@pytest.mark.parametrize("kind", ["jsonl", "json"])
@given(values=st.lists(JSON_VALUES, min_size=1, max_size=4))
@example(values=[{"queue": "green", "urgent": True, "note": None}, ["red"], True, 1e17, 1e-5, 3.0, "3"])
@QUICK
def test_counted_text_is_the_value(kind, values, tmp_path, tokenizer):
    check_rows(values, "output", kind, tmp_path, tokenizer, renamed=False)


COLUMNS_OF_NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1) | st.lists(
    st.floats(allow_nan=False, allow_infinity=False), min_size=1
)
STRUCTS = st.builds(lambda text, n: {"text": text, "n": n}, st.lists(TEXTS, max_size=2), st.integers(0, 9))


@given(values=COLUMNS_OF_NUMBERS | st.lists(STRUCTS, min_size=1, max_size=3))
@QUICK
def test_counted_text_is_parquets_value(values, tmp_path, tokenizer):
    check_rows(values, "output", "parquet", tmp_path, tokenizer, renamed=False)


NAMES = TEXTS.filter(lambda name: name not in ("", "number"))


@pytest.mark.parametrize("kind", WRITERS)
@given(name=NAMES, text=TEXTS)
@example(name="Queue Name", text="x")
@example(name="a.b", text="x")
@example(name="{x}", text="x")
@QUICK
def test_any_column_can_be_renamed(kind, name, text, tmp_path, tokenizer):
    check_rows([text], name, kind, tmp_path, tokenizer, renamed=name != "output")


@pytest.mark.parametrize("kind", WRITERS)
@given(
    name=NAMES.filter(lambda n: placeholders(f"{{{n}}}") == [n] and not template_mistake(f">{{{n}}}")),
    text=TEXTS,
)
@QUICK
def test_any_name_can_be_a_placeholder(kind, name, text, tmp_path, tokenizer):
    check_rows([text], name, kind, tmp_path, tokenizer, renamed=False)


@given(before=st.lists(JSON_VALUES, max_size=3), text=TEXTS, after=st.lists(JSON_VALUES, max_size=3))
@QUICK
def test_a_row_depends_on_no_other(before, text, after, tmp_path, tokenizer):
    values = [*before, text, *after]
    write_jsonl(tmp_path / "rows.jsonl", [{"output": value} for value in values])
    found = trained(tmp_path / "rows.jsonl", tokenizer, prompt="{output}.")
    assert found[len(before)] == (f"{text}.", f"{text}.")

"""The text and the counted text of a row, for every kind of prompt."""

from __future__ import annotations

import pytest

from hpotune.config.schema.study_config import DataConfig
from hpotune.finetune.data.dataset import DataRow
from hpotune.finetune.data.prompt import ALPACA, ALPACA_INPUT, classifier_text, text_pieces
from hpotune.finetune.data.tokenization import TokenizedRows
from hpotune.finetune.data.tokenization import tokenize_rows as tokenize_numbered_rows
from hpotune.finetune.training.loss import IGNORED
from hpotune.finetune.trial_errors import DataError, RowLeftOut
from tests.fixtures.tiny_model import tiny_tokenizer

ROW = {"instruction": "Name the topic.", "input": "The whale and the reef.", "output": "ocean"}
SHORT = ROW | {"input": ""}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def tokenize_rows(rows, *arguments, **options) -> TokenizedRows:
    """The rows, numbered from 0."""
    numbered = [DataRow(number=number, values=row) for number, row in enumerate(rows)]
    return tokenize_numbered_rows(numbered, *arguments, **options)


def seen(row, tokenizer, **config):
    """(the whole text, the counted text) of a row, read back from its tokens."""
    settings = DataConfig(path="x", **config)
    done = tokenize_rows([row], settings, tokenizer, labelled=False).rows[0]
    counted = [target for target in done.targets if target != IGNORED]
    return tokenizer.decode(done.ids), tokenizer.decode(counted)


def test_alpaca_counts_answer_and_end(tokenizer):
    whole, counted = seen(ROW, tokenizer, prompt="alpaca")
    assert whole == ALPACA_INPUT.format(**ROW) + "ocean</s>"
    assert counted == "ocean</s>"


def test_alpaca_without_input(tokenizer):
    whole, counted = seen(SHORT, tokenizer, prompt="alpaca")
    assert whole == ALPACA.format(instruction=ROW["instruction"]) + "ocean</s>"
    assert counted == "ocean</s>"


def test_text_counts_everything(tokenizer):
    assert seen({"text": "The whale."}, tokenizer, prompt="text") == ("The whale.</s>", "The whale.</s>")


def test_template_counts_the_response(tokenizer):
    row = {"q": "The whale?", "a": "ocean"}
    whole, counted = seen(row, tokenizer, prompt='{"asked": "{q}"} ->', response=" {a}")
    assert whole == '{"asked": "The whale?"} -> ocean</s>'
    assert counted == " ocean</s>"


def test_template_without_response_counts_everything(tokenizer):
    assert seen({"a": "x"}, tokenizer, prompt="say {a}") == ("say x</s>", "say x</s>")


def test_missing_column_names_the_others():
    with pytest.raises(DataError, match=r"no column 'output'; the data has instruction, text"):
        text_pieces({"instruction": "x", "text": "y"}, DataConfig(path="x"))


def test_classifier_text_has_no_answer():
    assert classifier_text(ROW, DataConfig(path="x")) == ALPACA_INPUT.format(**ROW)
    assert classifier_text({"text": "whale"}, DataConfig(path="x", prompt="text")) == "whale"


TEMPLATE = {"prompt": "{input}:", "response": " {output}"}


@pytest.mark.parametrize(
    ("config", "row", "pieces"),
    [
        (
            TEMPLATE,
            {"input": "x", "output": {"q": "green", "n": None}},
            [("x:", False), (' {"q": "green", "n": null}', True)],
        ),
        (TEMPLATE, {"input": None, "output": ""}, [(":", False), (" ", True)]),
        (TEMPLATE, {"input": "{output}", "output": "{input}"}, [("{output}:", False), (" {input}", True)]),
        (
            TEMPLATE | {"response": " {output.a.b}"},
            {"input": 1, "output": {"a": {"b": [True]}}},
            [("1:", False), (" [true]", True)],
        ),
        (
            TEMPLATE | {"response": '{"q": "{Queue Name}"}'},
            {"input": "x", "Queue Name": "red"},
            [("x:", False), ('{"q": "red"}', True)],
        ),
        (
            TEMPLATE | {"response": "{'{'}{output}{'}'}"},
            {"input": "x", "output": 42},
            [("x:", False), ("{42}", True)],
        ),
        ({"prompt": "text"}, {"text": ["a", 1.0]}, [('["a", 1.0]', True)]),
        (
            {"prompt": "alpaca"},
            ROW | {"input": 0, "output": True},
            [(ALPACA_INPUT.format(**ROW | {"input": 0}), False), ("true", True)],
        ),
        ({"prompt": "alpaca"}, ROW | {"input": None}, [(ALPACA.format(**ROW), False), ("ocean", True)]),
    ],
    ids=range(9),
)
def test_values_are_written_by_the_rule(config, row, pieces):
    assert text_pieces(row, DataConfig(path="x", **config)) == pieces


@pytest.mark.parametrize(
    ("config", "row", "reason"),
    [
        (TEMPLATE, {"input": "x", "output": None}, "column 'output' is missing (null)"),
        (
            {"prompt": "{input} -> {output}"},
            {"input": "x", "output": None},
            "column 'output' is missing (null)",
        ),
        ({"prompt": "text"}, {"text": None}, "column 'text' is missing (null)"),
        ({"prompt": "alpaca"}, ROW | {"output": None}, "column 'output' is missing (null)"),
        (
            TEMPLATE | {"response": "{output.a}"},
            {"input": "x", "output": {"b": 1}},
            "column 'output.a' is missing (null)",
        ),
        (
            TEMPLATE | {"response": "{output.a}"},
            {"input": "x", "output": "y"},
            "column 'output' is text, which has no field 'a'",
        ),
        (
            TEMPLATE,
            {"input": b"x", "output": "y"},
            "column 'input' holds bytes, which is neither text nor JSON",
        ),
        (TEMPLATE, {"input": "x", "output": float("inf")}, "column 'output' holds an infinite number"),
    ],
)
def test_rows_without_answer_are_left_out(config, row, reason):
    with pytest.raises(RowLeftOut) as left_out:
        text_pieces(row, DataConfig(path="x", **config))
    assert left_out.value.reason.startswith(reason)


def test_rows_without_label_are_left_out(tokenizer):
    rows = [{"text": "whale", "label": 1}, {"text": "reef", "label": None}]
    done = tokenize_rows(rows, DataConfig(path="x", prompt="text"), tokenizer, labelled=True)
    assert [row.number for row in done.used] == [0]
    assert [(row.number, row.reason) for row in done.left_out] == [
        (1, "column 'label' is missing (null) or empty")
    ]

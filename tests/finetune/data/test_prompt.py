"""The text and the counted text of a row, for every kind of prompt."""

from __future__ import annotations

import pytest

from hpotune.config.schema.study_config import DataConfig
from hpotune.finetune.data.chat_template import conversation_text
from hpotune.finetune.data.dataset import DataRow
from hpotune.finetune.data.encoding import encode
from hpotune.finetune.data.prompt import ALPACA, ALPACA_INPUT, classifier_text, text_pieces
from hpotune.finetune.data.tokenization import TokenizedRows
from hpotune.finetune.data.tokenization import tokenize_rows as tokenize_numbered_rows
from hpotune.finetune.training.loss import IGNORED
from hpotune.finetune.trial_errors import DataError, UserError
from tests.fixtures.tiny_model import tiny_tokenizer

ROW = {"instruction": "Name the topic.", "input": "The whale and the reef.", "output": "ocean"}
SHORT = ROW | {"input": ""}
TALK = {
    "messages": [
        {"role": "user", "content": "The drum."},
        {"role": "assistant", "content": "music"},
        {"role": "user", "content": "The tide."},
        {"role": "assistant", "content": "ocean"},
    ]
}


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


def test_chat_counts_every_answer(tokenizer):
    whole, counted = seen(TALK, tokenizer, prompt="chat")
    assert counted == "music</s>ocean</s>"
    assert whole.endswith("<|user|>\nThe tide.</s>\n<|assistant|>\nocean</s>")


def test_chat_reads_alpaca_columns(tokenizer):
    whole, counted = seen(ROW, tokenizer, prompt="chat")
    assert "Name the topic.\n\nThe whale and the reef." in whole
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


def test_tokenizers_end_is_counted_once(tokenizer):
    class Ending:
        is_fast, eos_token_id = True, tokenizer.eos_token_id

        def __call__(self, text, **options):
            coded = tokenizer(text, **options)
            ids, spans = coded["input_ids"], coded["offset_mapping"]
            return {"input_ids": [*ids, self.eos_token_id], "offset_mapping": [*spans, (0, 0)]}

    row = encode([("The whale ", False), ("ocean", True)], Ending(), max_length=64, special=True)
    assert row.ids.count(tokenizer.eos_token_id) == 1
    assert row.targets[-1] == tokenizer.eos_token_id


def test_row_is_cut_at_max_length(tokenizer):
    parts = text_pieces(ROW, DataConfig(path="x"))
    assert len(encode(parts, tokenizer, max_length=16, special=True).ids) == 16


def test_rows_without_answer_are_dropped(tokenizer):
    long = ROW | {"input": "whale " * 100}
    tokens = tokenize_rows([long, ROW], DataConfig(path="x", max_length=140), tokenizer, labelled=False)
    assert ([row.number for row in tokens.used], [row.number for row in tokens.left_out]) == ([1], [0])


def test_no_row_left_is_an_error(tokenizer):
    with pytest.raises(DataError, match="max_length: 16 cuts off the whole answer of all 1 rows"):
        tokenize_rows([ROW], DataConfig(path="x", max_length=16), tokenizer, labelled=False)


def test_missing_column_names_the_others():
    with pytest.raises(DataError, match=r"no column 'output'; the data has instruction, text"):
        text_pieces({"instruction": "x", "text": "y"}, DataConfig(path="x"))


def test_chat_needs_a_template():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="chat template"):
        conversation_text(ROW, tokenizer)


def test_classifier_text_has_no_answer():
    assert classifier_text(ROW, DataConfig(path="x")) == ALPACA_INPUT.format(**ROW)
    assert classifier_text({"text": "whale"}, DataConfig(path="x", prompt="text")) == "whale"

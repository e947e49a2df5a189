"""What the loss counts, in text, for every kind of prompt."""

from __future__ import annotations

import pytest

from hpotune.config.schema.study_config import DataConfig
from hpotune.finetune.data.dataset import tokenise
from hpotune.finetune.data.prompt import ALPACA, ALPACA_INPUT, encode, pieces, question
from hpotune.finetune.training.loss import IGNORED
from hpotune.finetune.trial_errors import DataError, UserError
from tests.tiny import tiny_tokenizer

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


def seen(row, tokenizer, **config):
    """(the whole text, the counted text) of a row, read back from its tokens."""
    settings = DataConfig(path="x", **config)
    done = tokenise([row], settings, tokenizer, labelled=False).rows[0]
    counted = [target for target in done.targets if target != IGNORED]
    return tokenizer.decode(done.ids), tokenizer.decode(counted)


def test_alpaca_counts_the_answer_and_the_end(tokenizer):
    whole, counted = seen(ROW, tokenizer, prompt="alpaca")
    assert whole == ALPACA_INPUT.format(**ROW) + "ocean</s>"
    assert counted == "ocean</s>"


def test_alpaca_without_input_has_the_shorter_text(tokenizer):
    whole, counted = seen(SHORT, tokenizer, prompt="alpaca")
    assert whole == ALPACA.format(instruction=ROW["instruction"]) + "ocean</s>"
    assert counted == "ocean</s>"


def test_chat_counts_every_answer_with_its_end_and_nothing_of_the_user(tokenizer):
    whole, counted = seen(TALK, tokenizer, prompt="chat")
    assert counted == "music</s>ocean</s>"
    assert whole.endswith("<|user|>\nThe tide.</s>\n<|assistant|>\nocean</s>")


def test_chat_takes_the_alpaca_columns_too(tokenizer):
    whole, counted = seen(ROW, tokenizer, prompt="chat")
    assert "Name the topic.\n\nThe whale and the reef." in whole
    assert counted == "ocean</s>"


def test_text_counts_everything(tokenizer):
    assert seen({"text": "The whale."}, tokenizer, prompt="text") == ("The whale.</s>", "The whale.</s>")


def test_a_template_with_a_response_counts_the_response(tokenizer):
    row = {"q": "The whale?", "a": "ocean"}
    whole, counted = seen(row, tokenizer, prompt='{"asked": "{q}"} ->', response=" {a}")
    assert whole == '{"asked": "The whale?"} -> ocean</s>'
    assert counted == " ocean</s>"


def test_a_bare_template_counts_everything(tokenizer):
    assert seen({"a": "x"}, tokenizer, prompt="say {a}") == ("say x</s>", "say x</s>")


def test_an_end_that_the_tokenizer_writes_itself_is_counted_once(tokenizer):
    class Ending:
        is_fast, eos_token_id = True, tokenizer.eos_token_id

        def __call__(self, text, **options):
            coded = tokenizer(text, **options)
            ids, spans = coded["input_ids"], coded["offset_mapping"]
            return {"input_ids": [*ids, self.eos_token_id], "offset_mapping": [*spans, (0, 0)]}

    row = encode([("The whale ", False), ("ocean", True)], Ending(), max_length=64, special=True)
    assert row.ids.count(tokenizer.eos_token_id) == 1
    assert row.targets[-1] == tokenizer.eos_token_id


def test_a_row_is_cut_at_its_end(tokenizer):
    parts = pieces(ROW, DataConfig(path="x"), tokenizer)
    assert len(encode(parts, tokenizer, max_length=16, special=True).ids) == 16


def test_rows_whose_answer_is_cut_away_are_dropped_and_counted(tokenizer):
    long = ROW | {"input": "whale " * 100}
    tokens = tokenise([long, ROW], DataConfig(path="x", max_length=140), tokenizer, labelled=False)
    assert (len(tokens.rows), tokens.dropped) == (1, 1)


def test_a_set_of_which_nothing_is_left_is_an_error(tokenizer):
    with pytest.raises(DataError, match="max_length: 16 cuts the answer out of all 1 rows"):
        tokenise([ROW], DataConfig(path="x", max_length=16), tokenizer, labelled=False)


def test_a_missing_column_is_an_error_that_names_those_there_are(tokenizer):
    with pytest.raises(DataError, match=r"no column 'output'; the data has instruction, text"):
        pieces({"instruction": "x", "text": "y"}, DataConfig(path="x"), tokenizer)


def test_chat_needs_a_template():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="chat template"):
        pieces(ROW, DataConfig(path="x", prompt="chat"), tokenizer)


def test_a_classifier_reads_the_prompt_without_the_answer():
    assert question(ROW, DataConfig(path="x")) == ALPACA_INPUT.format(**ROW)
    assert question({"text": "whale"}, DataConfig(path="x", prompt="text")) == "whale"

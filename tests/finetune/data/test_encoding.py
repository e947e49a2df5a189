"""Pieces of text as token ids: which tokens count, and special tokens that the text itself holds."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from hpotune.finetune.data.encoding import added_tokens, encode_rows, encode_texts
from hpotune.finetune.training.loss import IGNORED
from hpotune.finetune.trial_errors import UserError
from tests.fixtures.tiny_model import tiny_tokenizer

PROMPTS = ("The whale", "The whale ", "Q:  ", "Q:\n\n", " ", "a.\n", "\u00e9\u4e2d ", "tab\t", "")
ANSWERS = ("ocean", " ocean", "\n ocean", "\t", "  ", " \u4e2d", "\U0001f40b reef", "x ", "\n\nx\n", "")


def with_processor(processor: processors.PostProcessor) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with this post-processor."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processor
    return tokenizer


def template(single: str) -> processors.TemplateProcessing:
    """A post-processor that adds <s> (1) or </s> (2)."""
    return processors.TemplateProcessing(single=single, special_tokens=[("<s>", 1), ("</s>", 2)])


BOTH = template("<s> $A </s>")
TRIMMING = {
    "bytes": processors.ByteLevel(trim_offsets=True),
    "roberta": processors.RobertaProcessing(("</s>", 2), ("<s>", 1), trim_offsets=True),
    "sequence": processors.Sequence([processors.ByteLevel(trim_offsets=True), template("<s> $A")]),
}


TOKENIZERS = {kind: with_processor(processor) for kind, processor in TRIMMING.items()}
TEXT = st.lists(st.sampled_from(["<s>", "</s>", " ", "\n\n", "whale"]) | st.text(max_size=5), max_size=4).map(
    "".join
)


@pytest.mark.parametrize("kind", TRIMMING)
def test_trimmed_offsets_change_no_target(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    rows = [[(p, False), (a, True)] for p, a in itertools.product(PROMPTS, ANSWERS)]
    for pieces, row in zip(rows, encode_rows(rows, tokenizer, special=False), strict=True):
        (prompt, _), (answer, _) = pieces
        # A byte-level token is the bytes it decodes to: count the bytes of the text, not the offsets.
        ends = itertools.accumulate(len(token) for token in tokenizer.convert_ids_to_tokens(row.ids[:-1]))
        first = len(prompt.encode())
        expected = [token if end > first else IGNORED for token, end in zip(row.ids[:-1], ends, strict=True)]
        assert row.targets == [*expected, 2], (prompt, answer)


def test_trimming_is_switched_on_again() -> None:
    tokenizer = TOKENIZERS["sequence"]
    encode_rows([[("The whale", True)]], tokenizer, special=True)
    assert tokenizer.backend_tokenizer.post_processor[0].trim_offsets is True


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("reef", "<s>reef</s>"),
        ("<s>reef", "<s>reef</s>"),
        ("reef</s>", "<s>reef</s>"),
        ("<s>reef</s>", "<s>reef</s>"),
        ("<s>", "<s></s>"),
        ("</s>", "<s></s>"),
        ("", "<s></s>"),
        ("<s><s>reef", "<s><s>reef</s>"),
        ("reef<s>", "<s>reef<s></s>"),
    ],
)
def test_special_tokens_are_added_once(text: str, kept: str) -> None:
    tokenizer = with_processor(BOTH)
    row = encode_rows([[(text, True)]], tokenizer, special=True)[0]
    assert tokenizer.decode(row.ids) == kept
    assert len(row.targets) == len(row.ids)
    assert row.targets[-1] == tokenizer.eos_token_id
    assert encode_texts([text], tokenizer, max_length=64) == [(row.ids, False)]


def test_text_keeps_its_own_tokens() -> None:
    row = encode_rows([[("<s>reef", True)]], tiny_tokenizer(), special=True)[0]
    assert tiny_tokenizer().decode(row.ids) == "<s>reef</s>"


def test_two_added_tokens_are_seen() -> None:
    tokenizer = with_processor(template("</s> <s> $A"))
    assert added_tokens(tokenizer).before == [2, 1]
    for text in ("</s><s>reef", "<s>reef", "reef"):
        row = encode_rows([[(text, True)]], tokenizer, special=True)[0]
        assert tokenizer.decode(row.ids) == "</s><s>reef</s>"


@pytest.mark.parametrize("side", ["right", "left"])
def test_text_is_cut_as_tokenizers_cut(side: str) -> None:
    tokenizer = with_processor(BOTH)
    tokenizer.truncation_side = side
    texts = ["whale " * count for count in range(1, 20)]
    full = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    cut = tokenizer(texts, truncation=True, max_length=16)["input_ids"]
    assert encode_texts(texts, tokenizer, max_length=16) == [
        (ids, length > 16) for ids, length in zip(cut, full, strict=True)
    ]


def test_counted_tokens_decode_to_the_answer() -> None:
    tokenizer, rng = tiny_tokenizer(), random.Random(0)
    rows = []
    for _ in range(200):
        text = ["".join(rng.choices("ab \n\t.{}\u00e9\u4e2d\U0001f40b", k=rng.randint(0, 9))) for _ in "qa"]
        rows.append([(text[0] + "|", False), ("|" + text[1], True)])
    for pieces, row in zip(rows, encode_rows(rows, tokenizer, special=True), strict=True):
        counted = [token for token in row.targets if token != IGNORED]
        assert tokenizer.decode(counted) == pieces[1][0] + "</s>"


@settings(max_examples=150, deadline=None)
@given(TEXT, TEXT, st.sampled_from(sorted(TRIMMING)))
def test_any_answer_is_counted(prompt: str, answer: str, kind: str) -> None:
    row = encode_rows([[(prompt, False), (answer, True)]], TOKENIZERS[kind], special=True)[0]
    counted = TOKENIZERS[kind].decode([token for token in row.targets if token != IGNORED])
    end = "" if answer.endswith("</s>") else "</s>"
    assert counted.endswith(answer + end)  # before it: the rest of a token that begins in the prompt


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(UserError, match=r"model\.tokenizer: not a fast tokenizer"):
        encode_rows([[("x", True)]], Slow(), special=True)

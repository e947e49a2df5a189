"""A row of a dataset as pieces of text, and the pieces as token ids with the targets that the loss counts.

Source: the alpaca texts are those of tatsu-lab/stanford_alpaca, with the line break before the answer as in the column
`text` of tatsu-lab/alpaca.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import transformers

from hpotune.config.schema.study_config import HOLE, DataConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.training.loss import IGNORED, Row
from hpotune.finetune.trial_errors import DataError, UserError

Piece = tuple[str, bool]
"""A text, and whether the loss counts it."""

ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


def text_pieces(
    row: Mapping[str, Value], config: DataConfig, tokenizer: transformers.PreTrainedTokenizerBase
) -> list[Piece]:
    """The text of a row for a language model.

    Raises: DataError for a missing column, UserError for a tokenizer without a usable chat template.
    """
    if config.prompt == "alpaca":
        return [(_alpaca_prompt(row), False), (_text(row, "output"), True)]
    if config.prompt == "chat":
        return _chat_pieces(chat_messages(row), tokenizer)
    if config.prompt == "text":
        return [(_text(row, "text"), True)]
    prompt = fill_template(config.prompt, row)
    return (
        [(prompt, True)]
        if config.response is None
        else [(prompt, False), (fill_template(config.response, row), True)]
    )


def classifier_text(row: Mapping[str, Value], config: DataConfig) -> str:
    """The text of a row for a classifier: the prompt without an answer.

    Raises: DataError for a missing column, UserError for `chat`.
    """
    if config.prompt == "chat":
        raise UserError(
            "data.prompt: chat needs task: causal_lm; for sequence_classification set text or a template"
        )
    if config.prompt == "alpaca":
        return _alpaca_prompt(row)
    return _text(row, "text") if config.prompt == "text" else fill_template(config.prompt, row)


def encode(
    parts: Sequence[Piece], tokenizer: transformers.PreTrainedTokenizerBase, *, max_length: int, special: bool
) -> Row:
    """The pieces as one row that ends with the end token, cut to `max_length`, with the counted tokens as targets.

    `special`: whether the tokenizer adds its special tokens (a chat template contains them).
    Raises: UserError for a tokenizer that does not return the offsets of its tokens.
    """
    if not tokenizer.is_fast:
        raise UserError(
            "model.tokenizer: not a fast tokenizer, which is needed to find the answer's tokens; set one that is"
        )
    text = "".join(piece for piece, _ in parts)
    counted = [flag for piece, flag in parts for _ in piece] or [False]
    coded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    ids = list(coded["input_ids"])
    # A token across two pieces belongs to the piece of its last character; a token of blanks may have an empty span.
    ends = [max(start, end - 1) for start, end in coded["offset_mapping"]]
    targets = [
        token if counted[min(end, len(counted) - 1)] else IGNORED
        for token, end in zip(ids, ends, strict=True)
    ]
    end_id = tokenizer.eos_token_id
    if end_id is not None and (not ids or ids[-1] != end_id):
        ids, targets = [*ids, end_id], [*targets, end_id]
    elif end_id is not None:
        targets[-1] = end_id  # added by the tokenizer, outside of the text
    return Row(ids=ids[:max_length], targets=targets[:max_length])


def chat_messages(row: Mapping[str, Value]) -> list[dict[str, str]]:
    """The conversation of a row: its column `messages`, or the alpaca columns as one question and answer."""
    if "messages" in row:
        return list(cast("list[dict[str, str]]", row["messages"]))
    extra = row.get("input") or ""
    prompt = _text(row, "instruction") + (f"\n\n{extra}" if extra else "")
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": _text(row, "output")}]


def fill_template(template: str, row: Mapping[str, Value]) -> str:
    """The template with its {columns} replaced by the row's values.

    Raises: DataError for a missing column.
    """
    return HOLE.sub(lambda match: _text(row, match[1]), template)


def _alpaca_prompt(row: Mapping[str, Value]) -> str:
    return fill_template(ALPACA_INPUT if row.get("input") else ALPACA, row)


def _chat_pieces(
    messages: Sequence[Mapping[str, str]], tokenizer: transformers.PreTrainedTokenizerBase
) -> list[Piece]:
    """The conversation in the chat template; the assistant's messages count, with the token that ends them."""

    def templated(part: Sequence[Mapping[str, str]], *, generation_prompt: bool) -> str:
        return str(
            tokenizer.apply_chat_template(list(part), tokenize=False, add_generation_prompt=generation_prompt)
        )

    if tokenizer.chat_template is None:
        raise UserError(
            "data.prompt: chat needs a tokenizer with a chat template; set model.tokenizer or another prompt"
        )
    whole, done, parts = templated(messages, generation_prompt=False), 0, list[Piece]()
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = templated(messages[:index], generation_prompt=True)
        after = templated(messages[: index + 1], generation_prompt=False).rstrip()
        if not (after.startswith(before) and whole.startswith(after)):
            raise UserError(
                "data.prompt: chat needs a chat template that keeps earlier messages unchanged, to find the answers; "
                "set another prompt"
            )
        parts += [(whole[done : len(before)], False), (whole[len(before) : len(after)], True)]
        done = len(after)
    # The text after the last answer (a line break) is left out, so that the row ends with the end token.
    return parts


def _text(row: Mapping[str, Value], column: str) -> str:
    if column not in row:
        raise DataError(
            f"no column {column!r}; the data has {', '.join(sorted(row))}; name yours under data.columns"
        )
    return "" if row[column] is None else str(row[column])

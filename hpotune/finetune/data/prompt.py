"""A row of a dataset as pieces of text, and pieces as tokens with the ones that the loss counts.

Source: the alpaca texts are those of tatsu-lab/stanford_alpaca, with the line break before the answer that
the column `text` of tatsu-lab/alpaca has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpotune.config.schema.study_config import HOLE, DataConfig, Json
from hpotune.finetune.training.loss import IGNORED, Row
from hpotune.finetune.trial_errors import DataError, UserError

Piece = tuple[str, bool]
"""Text, and whether the loss counts it."""

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


def pieces(row: Mapping[str, Json], config: DataConfig, tokenizer: Json) -> list[Piece]:
    """The text of a row for a language model.

    Raises: DataError for a missing column.
    """
    if config.prompt == "alpaca":
        return [(_alpaca(row), False), (_text(row, "output"), True)]
    if config.prompt == "chat":
        return _chat(messages(row), tokenizer)
    if config.prompt == "text":
        return [(_text(row, "text"), True)]
    prompt = fill(config.prompt, row)
    return (
        [(prompt, True)] if config.response is None else [(prompt, False), (fill(config.response, row), True)]
    )


def question(row: Mapping[str, Json], config: DataConfig) -> str:
    """The text of a row for a classifier: the prompt without an answer.

    Raises: DataError for a missing column, UserError for `chat`.
    """
    if config.prompt == "chat":
        raise UserError(
            "data.prompt: chat serves causal_lm; for sequence_classification write text or a template"
        )
    if config.prompt == "alpaca":
        return _alpaca(row)
    return _text(row, "text") if config.prompt == "text" else fill(config.prompt, row)


def encode(parts: Sequence[Piece], tokenizer: Json, *, max_length: int, special: bool) -> Row:
    """The pieces as one row that ends with the end token, cut at `max_length`; targets: the counted tokens.

    `special`: the tokenizer adds its opening tokens (a chat template has written them already).
    Raises: UserError for a tokenizer that cannot say where a token stands in the text.
    """
    if not tokenizer.is_fast:
        raise UserError(
            "the tokenizer has no fast form, which is needed to find the answer's tokens; set model.tokenizer"
        )
    text = "".join(piece for piece, _ in parts)
    counted = [flag for piece, flag in parts for _ in piece] or [False]
    coded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    ids = list(coded["input_ids"])
    # The last character decides for a token across a border; a token of blanks may have an empty span.
    ends = [max(start, end - 1) for start, end in coded["offset_mapping"]]
    targets = [
        token if counted[min(end, len(counted) - 1)] else IGNORED
        for token, end in zip(ids, ends, strict=True)
    ]
    end_id = tokenizer.eos_token_id
    if end_id is not None and (not ids or ids[-1] != end_id):
        ids, targets = [*ids, end_id], [*targets, end_id]
    elif end_id is not None:
        targets[-1] = end_id  # written by the tokenizer itself, outside of the text
    return Row(ids=ids[:max_length], targets=targets[:max_length])


def messages(row: Mapping[str, Json]) -> list[dict[str, str]]:
    """The conversation of a row: its column `messages`, or the alpaca columns as one exchange."""
    if "messages" in row:
        return list(row["messages"])
    extra = row.get("input") or ""
    asked = _text(row, "instruction") + (f"\n\n{extra}" if extra else "")
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": _text(row, "output")}]


def fill(template: str, row: Mapping[str, Json]) -> str:
    """The template with the row's columns put in.

    Raises: DataError for a missing column.
    """
    return HOLE.sub(lambda match: _text(row, match[1]), template)


def _alpaca(row: Mapping[str, Json]) -> str:
    return fill(ALPACA_INPUT if row.get("input") else ALPACA, row)


def _chat(talk: Sequence[Mapping[str, str]], tokenizer: Json) -> list[Piece]:
    """The templated conversation; the assistant's turns count, with the token that ends them."""

    def templated(turns: Sequence[Mapping[str, str]], opened: bool) -> str:
        return str(tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=opened))

    if tokenizer.chat_template is None:
        raise UserError(
            "data.prompt: chat needs a tokenizer with a chat template; set model.tokenizer or another prompt"
        )
    whole, done, parts = templated(talk, False), 0, list[Piece]()
    for index, turn in enumerate(talk):
        if turn["role"] != "assistant":
            continue
        before, after = templated(talk[:index], True), templated(talk[: index + 1], False).rstrip()
        if not (after.startswith(before) and whole.startswith(after)):
            raise UserError(
                "the chat template rewrites earlier turns; the loss cannot find the answers in it"
            )
        parts += [(whole[done : len(before)], False), (whole[len(before) : len(after)], True)]
        done = len(after)
    # What follows the last answer (a line break) is left out, so that the end token really ends the row.
    return parts


def _text(row: Mapping[str, Json], column: str) -> str:
    if column not in row:
        raise DataError(
            f"no column {column!r}; the data has {', '.join(sorted(row))}; name yours under data.columns"
        )
    return "" if row[column] is None else str(row[column])

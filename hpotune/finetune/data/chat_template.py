"""A row as a conversation in the chat template of the tokenizer, with the assistant's messages as counted pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import transformers

from hpotune.config.yaml_source import Value
from hpotune.finetune.data.prompt import Piece, column_text
from hpotune.finetune.trial_errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class RowText:
    """The text of a row."""

    pieces: list[Piece]
    lost_answers: int = 0
    """Messages of the assistant that cannot be found in the text, so that they are not counted."""

    @property
    def whole(self) -> str:
        """All pieces."""
        return "".join(piece for piece, _ in self.pieces)


def conversation_text(row: Mapping[str, Value], tokenizer: transformers.PreTrainedTokenizerBase) -> RowText:
    """The conversation of a row as text.

    Raises: DataError for a missing column, UserError for a tokenizer without a usable chat template.
    """
    return RowText(pieces=_chat_pieces(chat_messages(row), tokenizer))


def chat_messages(row: Mapping[str, Value]) -> list[dict[str, str]]:
    """The conversation of a row: its column `messages`, or the alpaca columns as one question and answer."""
    if "messages" in row:
        return list(cast("list[dict[str, str]]", row["messages"]))
    extra = row.get("input") or ""
    prompt = column_text(row, "instruction") + (f"\n\n{extra}" if extra else "")
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": column_text(row, "output")}]


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

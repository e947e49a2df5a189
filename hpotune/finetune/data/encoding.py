"""Pieces of text as token ids with the targets that the loss counts. Nothing is truncated here.

The pieces of a row are tokenized together, as one text: tokens at the border of two pieces are those that the model
sees when it generates.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import transformers
from tokenizers import processors

from hpotune.finetune.data.prompt import Piece
from hpotune.finetune.training.loss import IGNORED, Row
from hpotune.finetune.trial_errors import UserError

TrimmingProcessor = processors.ByteLevel | processors.RobertaProcessing
Span = tuple[int, int]
"""First character of a token in the text, and the character after its last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AddedTokens:
    """The special tokens that a tokenizer adds to every text."""

    before: list[int]
    after: list[int]

    def without_repeats(self, ids: Sequence[int]) -> tuple[slice, slice, slice]:
        """The added tokens before the text, the text's own, and those after it, without what the text itself holds.

        A text that begins with the token `<s>` keeps that one alone; a second one is not what the model has learned.
        """
        first, last = len(self.before), len(ids) - len(self.after)
        own = ids[first:last]
        begins = _overlap(self.before, own)
        ends = _overlap(own[begins:], self.after)
        return slice(0, first - begins), slice(first, last), slice(last + ends, len(ids))


def added_tokens(tokenizer: transformers.PreTrainedTokenizerBase) -> AddedTokens:
    """The special tokens that the tokenizer adds to every text; none if that cannot be seen."""
    plain, whole = (list(tokenizer("a", add_special_tokens=added)["input_ids"]) for added in (False, True))
    for first in range(len(whole) - len(plain) + 1 if plain else 0):
        last = first + len(plain)
        if whole[first:last] == plain:
            return AddedTokens(before=whole[:first], after=whole[last:])
    return AddedTokens(before=[], after=[])


def encode_rows(
    rows: Sequence[Sequence[Piece]], tokenizer: transformers.PreTrainedTokenizerBase, *, special: bool
) -> list[Row]:
    """Each row's pieces as one row that ends with the end token, with the counted tokens as targets.

    `special`: whether the tokenizer adds its special tokens (a chat template contains them).
    Raises: UserError for a tokenizer that does not return the offsets of its tokens.
    """
    if not tokenizer.is_fast:
        raise UserError(
            "model.tokenizer: not a fast tokenizer, which is needed to find the answer's tokens; set one that is"
        )
    added = added_tokens(tokenizer) if special else AddedTokens(before=[], after=[])
    texts = ["".join(piece for piece, _ in pieces) for pieces in rows]
    with _spans_of_whole_tokens(tokenizer):
        coded = tokenizer(
            texts,
            add_special_tokens=special,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
    end_id = tokenizer.eos_token_id
    encoded: list[Row] = []
    for pieces, ids, spans in zip(rows, coded["input_ids"], coded["offset_mapping"], strict=True):
        parts = added.without_repeats(ids)
        ids, spans = ([one for part in parts for one in whole[part]] for whole in (ids, spans))
        encoded.append(_ended(Row(ids=ids, targets=_targets(pieces, ids, spans)), end_id))
    return encoded


def encode_texts(
    texts: Sequence[str], tokenizer: transformers.PreTrainedTokenizerBase, *, max_length: int
) -> list[tuple[list[int], bool]]:
    """Each text as token ids with the tokenizer's special tokens, and whether tokens of it were cut off.

    The special tokens after the text are never cut off; other tokens are, on the tokenizer's truncation side.
    """
    added = added_tokens(tokenizer)
    encoded = []
    for ids in tokenizer(list(texts), verbose=False)["input_ids"]:
        before, own, after = (list(ids[part]) for part in added.without_repeats(ids))
        is_cut = len(before) + len(own) + len(after) > max_length
        if is_cut:
            after = added.after
            room = max(0, max_length - len(before) - len(after))
            own = own[:room] if tokenizer.truncation_side == "right" else own[len(own) - room :]
        encoded.append(([*before, *own, *after][:max_length], is_cut))
    return encoded


def _overlap(first: Sequence[int], second: Sequence[int]) -> int:
    """The length of the longest end of `first` that is a beginning of `second`."""
    longest = min(len(first), len(second))
    return next((n for n in range(longest, 0, -1) if first[len(first) - n :] == second[:n]), 0)


@contextmanager
def _spans_of_whole_tokens(tokenizer: transformers.PreTrainedTokenizerBase) -> Iterator[None]:
    """Switch off `trim_offsets`, which leaves blanks out of a token's span.

    With it, a token of blanks has an empty span at the next word, and would belong to the answer behind it.
    """
    trimming = [part for part in _trimming(tokenizer.backend_tokenizer.post_processor) if part.trim_offsets]
    for part in trimming:
        part.trim_offsets = False
    try:
        yield
    finally:
        for part in trimming:
            part.trim_offsets = True


def _trimming(processor: object) -> list[TrimmingProcessor]:
    """The post-processor, or its parts, that can trim offsets."""
    if isinstance(processor, processors.Sequence):
        return [one for part in cast("Iterable[object]", processor) for one in _trimming(part)]
    return [processor] if isinstance(processor, TrimmingProcessor) else []


def _targets(pieces: Sequence[Piece], ids: Sequence[int], spans: Sequence[Span]) -> list[int]:
    """The ids of counted tokens, IGNORED for others; a token across two pieces is in that of its last character."""
    starts, flags, length = [0], [False], 0
    for piece, counted in pieces:
        if piece:
            starts.append(length)
            flags.append(counted)
            length += len(piece)
    return [
        token if flags[bisect_right(starts, max(start, end - 1)) - 1] else IGNORED
        for token, (start, end) in zip(ids, spans, strict=True)
    ]


def _ended(row: Row, end_id: int | None) -> Row:
    """The row with the end token as its last, which is counted."""
    if end_id is None:
        return row
    if row.ids and row.ids[-1] == end_id:
        return Row(ids=row.ids, targets=[*row.targets[:-1], end_id])
    return Row(ids=[*row.ids, end_id], targets=[*row.targets, end_id])

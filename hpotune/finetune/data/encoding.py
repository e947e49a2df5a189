"""Pieces of text as token ids with the targets that the loss counts."""

from __future__ import annotations

from collections.abc import Sequence

import transformers

from hpotune.finetune.data.prompt import Piece
from hpotune.finetune.training.loss import IGNORED, Row
from hpotune.finetune.trial_errors import UserError


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

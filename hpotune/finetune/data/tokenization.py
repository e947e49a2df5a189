"""Rows as the text and the tokens that are trained: rendered, tokenized, cut to max_length, or left out with a reason.

A trial trains what `tokenize_rows` returns; `hpotune check` and `hpotune preview` call the same function on every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import transformers

from hpotune.config.schema.study_config import DataConfig
from hpotune.finetune.data.chat_template import conversation_pieces
from hpotune.finetune.data.dataset import LABEL, DataRow
from hpotune.finetune.data.encoding import encode
from hpotune.finetune.data.prompt import Piece, classifier_text, text_pieces
from hpotune.finetune.training.loss import IGNORED, Row
from hpotune.finetune.trial_errors import DataError

TOO_LONG = "data.max_length cuts off its whole answer"


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedRow:
    """A row that is trained or evaluated."""

    number: int
    """As DataRow.number."""
    pieces: list[Piece]
    """Its text before truncation."""
    tokens: Row
    """Cut to max_length."""
    is_cut: bool
    """Whether max_length cut tokens off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOutRow:
    """A row that cannot be used."""

    number: int
    """As DataRow.number."""
    reason: str
    """Completes the sentence `row 3 is left out: …`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedRows:
    """All rows of a split, those that are used and those that are not."""

    used: list[TokenizedRow]
    left_out: list[LeftOutRow]

    @property
    def rows(self) -> list[Row]:
        """The tokens of the rows that are used."""
        return [row.tokens for row in self.used]

    @property
    def cut(self) -> int:
        """The number of used rows that were cut to max_length."""
        return sum(row.is_cut for row in self.used)


def tokenize_rows(
    rows: Sequence[DataRow],
    config: DataConfig,
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    labelled: bool,
) -> TokenizedRows:
    """The rows as text and token ids; rows without a counted token are left out.

    Raises: DataError if no row is left, or a column is missing.
    """
    used, left_out = list[TokenizedRow](), list[LeftOutRow]()
    for row in rows:
        if labelled:
            text = classifier_text(row.values, config)
            pieces: list[Piece] = [(text, False)]
            ids = tokenizer(text, truncation=True, max_length=config.max_length)["input_ids"]
            tokens = Row(ids=list(ids), targets=[int(cast(int, row.values[LABEL]))])
        else:
            chat = config.prompt == "chat"
            pieces = conversation_pieces(row.values, tokenizer) if chat else text_pieces(row.values, config)
            tokens = encode(pieces, tokenizer, max_length=config.max_length, special=not chat)
        if labelled or any(target != IGNORED for target in tokens.targets[1:]):
            is_cut = len(tokens.ids) == config.max_length
            used.append(TokenizedRow(number=row.number, pieces=pieces, tokens=tokens, is_cut=is_cut))
        else:
            left_out.append(LeftOutRow(number=row.number, reason=TOO_LONG))
    if rows and not used:
        raise DataError(
            f"data.max_length: {config.max_length} cuts off the whole answer of all {len(rows)} rows; raise it"
        )
    return TokenizedRows(used=used, left_out=left_out)

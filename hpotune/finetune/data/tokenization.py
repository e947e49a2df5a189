"""Rows as the text and the tokens that are trained: rendered, tokenized, cut to max_length, or left out with a reason.

A trial trains what `tokenize_rows` returns; `hpotune check` and `hpotune preview` call the same function on every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import transformers

from hpotune.config.schema.study_config import DataConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.data.chat_template import RowText, conversation_text
from hpotune.finetune.data.dataset import LABEL, DataRow
from hpotune.finetune.data.encoding import encode_rows, encode_texts
from hpotune.finetune.data.prompt import Piece, classifier_text, text_pieces
from hpotune.finetune.training.loss import IGNORED, Row
from hpotune.finetune.trial_errors import DataError, RowLeftOut

TOO_LONG = "data.max_length cuts off the whole answer"
NOTHING_COUNTED = "no token is counted by the loss"
NO_TOKEN = "the text has no token"
ROWS_AT_ONCE = 512  # of one call of the tokenizer, between two calls of `progress`
ROWS_SHOWN = 5  # row numbers in a message
REASONS_SHOWN = 5  # warnings about rows that are left out


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
    lost_answers: int = 0
    """Answers of the conversation that are not counted: the chat template rewrites them."""
    lost_roles: tuple[str, ...] = ()
    """As RowText.lost_roles."""
    source: str = ""
    """As DataRow.source."""

    @property
    def text(self) -> str:
        """The whole text before truncation."""
        return "".join(piece for piece, _ in self.pieces)

    @property
    def counted(self) -> str:
        """The text that the loss counts, before truncation; of a classification, none."""
        return "".join(piece for piece, counted in self.pieces if counted)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOutRow:
    """A row that cannot be used."""

    number: int
    """As DataRow.number."""
    reason: str
    """Completes the sentence `row 3 is left out: …`."""
    source: str = ""
    """As DataRow.source."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedRows:
    """All rows of a split, those that are used and those that are not."""

    used: list[TokenizedRow]
    left_out: list[LeftOutRow]

    def __add__(self, other: TokenizedRows) -> TokenizedRows:
        """The rows of both."""
        return TokenizedRows(used=self.used + other.used, left_out=self.left_out + other.left_out)

    @property
    def rows(self) -> list[Row]:
        """The tokens of the rows that are used."""
        return [row.tokens for row in self.used]

    @property
    def cut(self) -> int:
        """The number of used rows that were cut to max_length."""
        return sum(row.is_cut for row in self.used)

    @property
    def warnings(self) -> list[str]:
        """The rows that are left out by reason, the commonest first, and the answers that are not trained."""
        by_reason = _by_reason(self.left_out)
        found = [
            f"{len(numbers)} {'row is' if len(numbers) == 1 else 'rows are'} left out ({_shown(numbers)}): {reason}"
            for reason, numbers in by_reason[:REASONS_SHOWN]
        ]
        if further := sum(len(numbers) for _, numbers in by_reason[REASONS_SHOWN:]):
            found.append(f"{further} rows are left out for other reasons; see hpotune preview")
        if lost := [row.number for row in self.used if row.lost_answers]:
            found.append(
                f"{len(lost)} conversations are trained in part ({_shown(lost)}): the chat template rewrites earlier "
                "answers so that they cannot be found in its text; only the others are counted"
            )
        for role in dict.fromkeys(role for row in self.used for role in row.lost_roles):
            numbers = [row.number for row in self.used if role in row.lost_roles]
            found.append(
                f"{len(numbers)} conversation{'s' * (len(numbers) > 1)} ({_shown(numbers)}): the chat template leaves "
                f"out text of a message (role {role}); see hpotune preview"
            )
        return found


def tokenize_rows(
    rows: Sequence[DataRow],
    config: DataConfig,
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    labelled: bool,
    progress: Callable[[int], None] | None = None,
    kind: str = "rows",
) -> TokenizedRows:
    """The rows as text and token ids; rows without a counted token are left out.

    `kind`: what the rows are called in an error, such as `validation rows`.
    `progress` is called with the number of rows that are done.
    Raises: DataError if no row is left, or a column is missing; UserError for a tokenizer that cannot be used.
    """
    used, left_out = list[TokenizedRow](), list[LeftOutRow]()
    for first in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[first : first + ROWS_AT_ONCE]
        for row in (_labelled_rows if labelled else _language_rows)(some, config, tokenizer):
            if isinstance(row, TokenizedRow):
                used.append(row)
            else:
                left_out.append(row)
        if progress is not None:
            progress(first + len(some))
    if rows and not used:
        raise _none_left(left_out, config, kind)
    return TokenizedRows(used=used, left_out=left_out)


def check_left_out(tokenized: TokenizedRows, config: DataConfig) -> None:
    """Check the share of rows that are left out for another reason than max_length, of all rows of the study.

    Raises: DataError if it is above data.max_left_out.
    """
    odd = [row for row in tokenized.left_out if row.reason != TOO_LONG]
    total = len(tokenized.used) + len(tokenized.left_out)
    if len(odd) > config.max_left_out * total:
        reason, numbers = _by_reason(odd)[0]
        raise DataError(
            f"data.max_left_out: {len(odd)} of {total} rows are left out, above the share of {config.max_left_out:g}; "
            f"the commonest reason, of {len(numbers)} ({_shown(numbers)}): {reason}; correct the rows, or raise it"
        )


def _labelled_rows(
    rows: Sequence[DataRow], config: DataConfig, tokenizer: transformers.PreTrainedTokenizerBase
) -> Iterator[TokenizedRow | LeftOutRow]:
    """The rows of a classification."""

    def write(values: Mapping[str, Value]) -> RowText:
        return RowText(pieces=[(classifier_text(values, config), False)])

    texts, left_out = _texts(rows, write)
    yield from left_out
    if not texts:
        return
    encoded = encode_texts([text.whole for _, text in texts], tokenizer, max_length=config.max_length)
    for (row, text), (ids, is_cut) in zip(texts, encoded, strict=True):
        if ids:
            tokens = _row_of_label(ids, row.values[LABEL])
            yield TokenizedRow(
                number=row.number, pieces=text.pieces, tokens=tokens, is_cut=is_cut, source=row.source
            )
        else:
            yield LeftOutRow(number=row.number, reason=NO_TOKEN, source=row.source)


def _row_of_label(ids: list[int], label: Value) -> Row:
    """A row with its class, its classes or its number."""
    if isinstance(label, list):
        return Row(ids=ids, targets=[0], classes=tuple(int(cast(int, one)) for one in label))
    if isinstance(label, float):
        return Row(ids=ids, targets=[0], number=label)
    return Row(ids=ids, targets=[int(cast(int, label))])


def _language_rows(
    rows: Sequence[DataRow], config: DataConfig, tokenizer: transformers.PreTrainedTokenizerBase
) -> Iterator[TokenizedRow | LeftOutRow]:
    """The rows of a language model, each with a token that the loss counts: the first of a row is never predicted."""
    chat, length = config.prompt == "chat", config.max_length

    def write(values: Mapping[str, Value]) -> RowText:
        return conversation_text(values, tokenizer) if chat else RowText(pieces=text_pieces(values, config))

    texts, left_out = _texts(rows, write)
    yield from left_out
    if not texts:
        return
    encoded = encode_rows([text.pieces for _, text in texts], tokenizer, special=not chat)
    for (row, text), whole in zip(texts, encoded, strict=True):
        if _is_counted(whole.targets[:length]):
            yield TokenizedRow(
                number=row.number,
                pieces=text.pieces,
                tokens=Row(ids=whole.ids[:length], targets=whole.targets[:length]),
                is_cut=len(whole.ids) > length,
                lost_answers=text.lost_answers,
                lost_roles=text.lost_roles,
                source=row.source,
            )
        else:
            reason = TOO_LONG if _is_counted(whole.targets) else NOTHING_COUNTED
            yield LeftOutRow(number=row.number, reason=reason, source=row.source)


def _texts(
    rows: Sequence[DataRow], write: Callable[[Mapping[str, Value]], RowText]
) -> tuple[list[tuple[DataRow, RowText]], list[LeftOutRow]]:
    """The rows with their text, and those that have none."""
    texts, left_out = list[tuple[DataRow, RowText]](), list[LeftOutRow]()
    for row in rows:
        try:
            text = write(row.values)
            text.whole.encode()
        except RowLeftOut as odd:
            left_out.append(LeftOutRow(number=row.number, reason=odd.reason, source=row.source))
        except UnicodeEncodeError as error:
            code = f"U+{ord(error.object[error.start]):04X}"
            reason = f"the text holds the surrogate {code}, which is half a character"
            left_out.append(LeftOutRow(number=row.number, reason=reason, source=row.source))
        else:
            texts.append((row, text))
    return texts, left_out


def _is_counted(targets: Sequence[int]) -> bool:
    return any(target != IGNORED for target in targets[1:])


def _none_left(left_out: Sequence[LeftOutRow], config: DataConfig, kind: str) -> DataError:
    reason, numbers = _by_reason(left_out)[0]
    if reason == TOO_LONG and len(numbers) == len(left_out):
        return DataError(
            f"data.max_length: {config.max_length} cuts off the whole answer of all {len(left_out)} {kind}; raise it"
        )
    return DataError(
        f"data.path: all {len(left_out)} {kind} are left out, {len(numbers)} of them ({_shown(numbers)}) for this "
        f"reason: {reason}"
    )


def _by_reason(rows: Sequence[LeftOutRow]) -> list[tuple[str, list[int]]]:
    """Each reason with its row numbers, the commonest first."""
    found: dict[str, list[int]] = {}
    for row in sorted(rows, key=lambda row: row.number):
        found.setdefault(row.reason, []).append(row.number)
    return sorted(found.items(), key=lambda item: -len(item[1]))


def _shown(numbers: Sequence[int]) -> str:
    """Such as `rows 3, 8, 11, 12, 15 and 4 more`."""
    first = ", ".join(str(number) for number in sorted(numbers)[:ROWS_SHOWN])
    more = len(numbers) - ROWS_SHOWN
    return f"{'row' if len(numbers) == 1 else 'rows'} {first}" + (f" and {more} more" if more > 0 else "")

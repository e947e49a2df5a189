"""Rows as the text and the tokens that are trained: rendered, tokenized, cut to max_length, or left out with a reason.

A trial trains what `tokenize_rows` returns; `hpotune check` and `hpotune preview` call the same function on every row.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import transformers

from hpotune.config.schema.study_config import DataConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.data.chat_template import RowText, conversation_text
from hpotune.finetune.data.dataset import LABEL, DataRow
from hpotune.finetune.data.encoding import encode_rows, encode_texts
from hpotune.finetune.data.prompt import Piece, classifier_text, text_pieces
from hpotune.finetune.data.stored_sequence import Positions, StoredSequence, joined
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


class FileRows(StoredSequence[TokenizedRow]):
    """Rows that are read from a file (token_file.py)."""

    @property
    @abstractmethod
    def tokens(self) -> Sequence[Row]:
        """Their tokens, without the rest."""

    @property
    @abstractmethod
    def cut_numbers(self) -> list[int]:
        """The numbers of those that were cut to max_length."""

    @abstractmethod
    def of_source(self, name: str) -> Positions:
        """The indices of the rows of a source."""


def tokens_of(rows: Sequence[TokenizedRow]) -> Sequence[Row]:
    """The tokens of rows."""
    return rows.tokens if isinstance(rows, FileRows) else [row.tokens for row in rows]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedRows:
    """All rows of a split, those that are used and those that are not."""

    used: Sequence[TokenizedRow]
    left_out: Sequence[LeftOutRow]

    def __add__(self, other: TokenizedRows) -> TokenizedRows:
        """The rows of both."""
        return TokenizedRows(
            used=joined(self.used, other.used), left_out=joined(self.left_out, other.left_out)
        )

    @property
    def rows(self) -> Sequence[Row]:
        """The tokens of the rows that are used."""
        return tokens_of(self.used)

    @property
    def cut_numbers(self) -> list[int]:
        """The numbers of the used rows that were cut to max_length."""
        if isinstance(self.used, FileRows):
            return self.used.cut_numbers
        return [row.number for row in self.used if row.is_cut]

    @property
    def report(self) -> RowReport:
        """What is said of them."""
        found = RowReport()
        for used in self.used:
            found.add(used)
        for left_out in self.left_out:
            found.add(left_out)
        return found


@dataclass(kw_only=True, slots=True)
class RowNumbers:
    """How many rows there are of a kind, and the first of their numbers."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, number: int) -> None:
        """Count a row."""
        self.count += 1
        insort(self.first, number)
        del self.first[ROWS_SHOWN:]

    def __str__(self) -> str:
        """Such as `rows 3, 8, 11, 12, 15 and 4 more`."""
        first, more = ", ".join(map(str, self.first)), self.count - ROWS_SHOWN
        return f"{'row' if self.count == 1 else 'rows'} {first}" + (f" and {more} more" if more > 0 else "")


@dataclass(kw_only=True, slots=True)
class RowReport:
    """What is said of the rows of a source: counted one by one, so that they need not be in memory."""

    used: int = 0
    left_out: dict[str, RowNumbers] = field(default_factory=dict)
    """By reason."""
    lost: RowNumbers = field(default_factory=RowNumbers)
    """Conversations that are trained in part."""
    lost_roles: dict[str, RowNumbers] = field(default_factory=dict)
    """By the role of the message whose text is left out."""

    def add(self, row: TokenizedRow | LeftOutRow, *, number: int | None = None) -> None:
        """Count a row. `number`: another than it says."""
        number = row.number if number is None else number
        if isinstance(row, LeftOutRow):
            self.left_out.setdefault(row.reason, RowNumbers()).add(number)
            return
        self.used += 1
        if row.lost_answers:
            self.lost.add(number)
        for role in row.lost_roles:
            self.lost_roles.setdefault(role, RowNumbers()).add(number)

    @property
    def by_reason(self) -> list[tuple[str, RowNumbers]]:
        """Each reason for which rows are left out, the commonest first."""
        return sorted(self.left_out.items(), key=lambda item: (-item[1].count, item[1].first))

    @property
    def warnings(self) -> list[str]:
        """The rows that are left out by reason, the commonest first, and the answers that are not trained."""
        by_reason = self.by_reason
        found = [
            f"{numbers.count} {'row is' if numbers.count == 1 else 'rows are'} left out ({numbers}): {reason}"
            for reason, numbers in by_reason[:REASONS_SHOWN]
        ]
        if further := sum(numbers.count for _, numbers in by_reason[REASONS_SHOWN:]):
            found.append(f"{further} rows are left out for other reasons; see hpotune preview")
        if self.lost.count:
            found.append(
                f"{self.lost.count} conversations are trained in part ({self.lost}): the chat template rewrites "
                "earlier answers so that they cannot be found in its text; only the others are counted"
            )
        for role, numbers in sorted(self.lost_roles.items()):
            found.append(
                f"{numbers.count} conversation{'s' * (numbers.count > 1)} ({numbers}): the chat template leaves out "
                f"text of a message (role {role}); see hpotune preview"
            )
        return found

    def check_any_used(self, config: DataConfig, kind: str) -> None:
        """Check that a row is left. `kind`: what the rows are called, such as `validation rows`.

        Raises: DataError.
        """
        if self.used or not self.left_out:
            return
        total = sum(numbers.count for numbers in self.left_out.values())
        reason, numbers = self.by_reason[0]
        if reason == TOO_LONG and numbers.count == total:
            raise DataError(
                f"data.max_length: {config.max_length} cuts off the whole answer of all {total} {kind}; raise it"
            )
        raise DataError(
            f"data.path: all {total} {kind} are left out, {numbers.count} of them ({numbers}) for this reason: {reason}"
        )

    def check_left_out(self, config: DataConfig) -> None:
        """Check the share of rows that are left out for another reason than max_length, of all rows of the study.

        Raises: DataError if it is above data.max_left_out.
        """
        odd = [(reason, numbers) for reason, numbers in self.by_reason if reason != TOO_LONG]
        count = sum(numbers.count for _, numbers in odd)
        total = self.used + sum(numbers.count for numbers in self.left_out.values())
        if count > config.max_left_out * total:
            reason, numbers = odd[0]
            raise DataError(
                f"data.max_left_out: {count} of {total} rows are left out, above the share of "
                f"{config.max_left_out:g}; the commonest reason, of {numbers.count} ({numbers}): {reason}; correct the "
                "rows, or raise it"
            )


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
    used, left_out, report = list[TokenizedRow](), list[LeftOutRow](), RowReport()
    for first in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[first : first + ROWS_AT_ONCE]
        for row in tokenized_block(some, config, tokenizer, labelled=labelled):
            report.add(row)
            if isinstance(row, TokenizedRow):
                used.append(row)
            else:
                left_out.append(row)
        if progress is not None:
            progress(first + len(some))
    report.check_any_used(config, kind)
    return TokenizedRows(used=used, left_out=left_out)


def tokenized_block(
    rows: Sequence[DataRow],
    config: DataConfig,
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    labelled: bool,
) -> Iterator[TokenizedRow | LeftOutRow]:
    """The rows as text and token ids, those that are left out first.

    Raises: as `tokenize_rows`.
    """
    return (_labelled_rows if labelled else _language_rows)(rows, config, tokenizer)


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

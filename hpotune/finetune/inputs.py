"""What a trial has in memory before the base model is loaded: tokenizer, rows as tokens, label names.

The rehearsal on the login node calls the same functions, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import transformers

from hpotune.config.schema.study_config import DataConfig, ModelConfig
from hpotune.finetune.data.dataset import DataSplit, load_rows
from hpotune.finetune.data.mixture import SourceUse, mixed_rows, of_source, read_sources, source_text
from hpotune.finetune.data.prepared_rows import TokenizedSplit, find_prepared, prepared_key
from hpotune.finetune.data.streamed_split import open_streams, streamed_split
from hpotune.finetune.data.tokenization import (
    TokenizedRow,
    TokenizedRows,
    tokenize_rows,
    tokens_of,
)
from hpotune.finetune.model.base_model import load_tokenizer
from hpotune.finetune.model.labels import with_class_order
from hpotune.finetune.training.loss import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialInputs:
    """The tokenizer and the tokenized rows of a trial."""

    tokenizer: transformers.PreTrainedTokenizerBase
    pad_id: int
    split: TokenizedSplit
    """Every row that was tokenized; of a mixture whatever the weights are."""
    trained: Sequence[TokenizedRow]
    """The training rows of an epoch: those of the split, or the mixture's by its weights."""
    uses: list[SourceUse]
    """What an epoch trains of each source of a mixture; empty without one."""
    key: str | None = None
    """The `prepared_key` of the rows; None: they have none, or it was not needed."""

    @property
    def train(self) -> Sequence[Row]:
        """The training rows of an epoch."""
        return tokens_of(self.trained)

    @property
    def validation(self) -> Sequence[Row]:
        """The validation rows."""
        return self.split.validation.rows

    @property
    def labels(self) -> list[str] | None:
        """As TokenizedSplit.labels."""
        return self.split.labels


class KeptInputs(Protocol):
    """Tokenizer and rows that a process keeps between trials (warm/kept.py)."""

    def tokenizer(self, config: ModelConfig) -> transformers.PreTrainedTokenizerBase:
        """A tokenizer that no other trial has."""

    def rows(self, key: str) -> TokenizedSplit | None:
        """The rows of a `prepared_key`; None: they are not kept."""

    def keep_rows(self, key: str, split: TokenizedSplit) -> None:
        """Keep the rows of a key."""


def load_inputs(
    model: ModelConfig,
    data: DataConfig | None,
    *,
    data_root: str | None,
    prepared: Path | None = None,
    kept: KeptInputs | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrialInputs:
    """Tokenizer and tokenized rows. `prepared`: a folder with rows that a rehearsal has tokenized, used if they fit.

    `kept`: those of earlier trials of this process, used if they fit; None: nothing is kept. `progress` is called with
    the number of training rows that are tokenized, and that of all. `data`: None where nothing is trained.

    Raises: DataError, UserError.
    """
    tokenizer = load_tokenizer(model) if kept is None else kept.tokenizer(model)
    if data is None:
        return TrialInputs(
            tokenizer=tokenizer, pad_id=tokenizer.pad_token_id, split=no_rows(), trained=[], uses=[]
        )
    key = prepared_key(model, data, tokenizer, data_root=data_root) if prepared or kept else None
    split = kept.rows(key) if kept is not None and key else None
    if split is None and data.streaming:
        split = streamed_split(
            partial(open_streams, model, data, data_root=data_root),
            data,
            tokenizer,
            folder=prepared,
            key=key,
            progress=progress,
        )
    if split is None and prepared and key:
        split = find_prepared(prepared, key)
    if split is None:
        rows, labels = load_split(model, data, data_root=data_root)
        total = len(rows.train)
        split = tokenize_split(rows, labels, data, tokenizer, progress=lambda done: progress(done, total))
    if kept is not None and key:
        kept.keep_rows(key, split)
    trained, uses = mixed_rows(split.train.used, data)
    return TrialInputs(
        tokenizer=tokenizer,
        pad_id=tokenizer.pad_token_id,
        split=split,
        trained=trained,
        uses=uses,
        key=key,
    )


def no_rows() -> TokenizedSplit:
    """The rows of a study that trains nothing."""
    none = TokenizedRows(used=[], left_out=[])
    return TokenizedSplit(train=none, validation=none, labels=None, warnings=[])


def load_split(
    model: ModelConfig, data: DataConfig, *, data_root: str | None
) -> tuple[DataSplit, list[str] | None]:
    """The rows, and the label names in the order of the class numbers (None for a language model).

    Of a mixture those of all its sources, whatever their weights are. Raises: DataError, UserError.
    """
    parts, labels = read_sources(model, data, data_root=data_root, read=load_rows, ordered=with_class_order)
    return _together(parts), labels


def _together(parts: Sequence[DataSplit]) -> DataSplit:
    return DataSplit(
        train=[row for part in parts for row in part.train],
        validation=[row for part in parts for row in part.validation],
        labels=parts[0].labels,
        warnings=[text for part in parts for text in part.warnings],
    )


def tokenize_split(
    rows: DataSplit,
    labels: Sequence[str] | None,
    data: DataConfig,
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    progress: Callable[[int], None] | None = None,
) -> TokenizedSplit:
    """The rows as tokens, with the warnings about them. `progress` is called with the number of rows that are done.

    Raises: DataError, UserError.
    """
    labelled, ended = labels is not None, 0
    parts: list[tuple[TokenizedRows, TokenizedRows]] = []
    warnings: list[str] = []
    for name, source in data.sources.items():
        own = rows.of_source(name)

        def count(done: int, before: int = ended) -> None:
            if progress is not None:
                progress(before + done)

        with of_source(name):
            train = tokenize_rows(
                own.train, source, tokenizer, labelled=labelled, progress=count, kind="training rows"
            )
            held_out = tokenize_rows(
                own.validation, source, tokenizer, labelled=labelled, kind="validation rows"
            )
            report = (train + held_out).report
            report.check_left_out(source)
        parts.append((train, held_out))
        warnings += [source_text(text, name) for text in report.warnings]
        ended += len(own.train)
    none = TokenizedRows(used=[], left_out=[])
    return TokenizedSplit(
        train=sum((part[0] for part in parts), none),
        validation=sum((part[1] for part in parts), none),
        labels=None if labels is None else list(labels),
        warnings=[*warnings, *rows.warnings],
    )

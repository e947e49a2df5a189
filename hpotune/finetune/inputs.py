"""What a trial has in memory before the base model is loaded: tokenizer, rows as tokens, label names.

The rehearsal on the login node calls the same functions, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import transformers

from hpotune.config.schema.study_config import DataConfig, ModelConfig
from hpotune.finetune.data.dataset import DataSplit, load_rows
from hpotune.finetune.data.prepared_rows import TokenizedSplit, find_prepared, prepared_key
from hpotune.finetune.data.tokenization import check_left_out, tokenize_rows
from hpotune.finetune.model.base_model import load_tokenizer
from hpotune.finetune.model.labels import class_order, with_class_order
from hpotune.finetune.training.loss import Row
from hpotune.finetune.trial_errors import DatasetNotCached


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialInputs:
    """The tokenizer and the tokenized rows of a trial."""

    tokenizer: transformers.PreTrainedTokenizerBase
    pad_id: int
    split: TokenizedSplit
    key: str | None = None
    """The `prepared_key` of the rows; None: they have none, or it was not needed."""

    @property
    def train(self) -> list[Row]:
        """The training rows."""
        return self.split.train.rows

    @property
    def validation(self) -> list[Row]:
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
    data: DataConfig,
    *,
    data_root: str | None,
    prepared: Path | None = None,
    kept: KeptInputs | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrialInputs:
    """Tokenizer and tokenized rows. `prepared`: a folder with rows that a rehearsal has tokenized, used if they fit.

    `kept`: those of earlier trials of this process, used if they fit; None: nothing is kept. `progress` is called with
    the number of training rows that are tokenized, and that of all.

    Raises: DataError, UserError.
    """
    tokenizer = load_tokenizer(model) if kept is None else kept.tokenizer(model)
    key = prepared_key(model, data, tokenizer, data_root=data_root) if prepared or kept else None
    split = kept.rows(key) if kept is not None and key else None
    if split is None and prepared and key:
        split = find_prepared(prepared, key)
    if split is None:
        rows, labels = load_split(model, data, data_root=data_root)
        total = len(rows.train)
        split = tokenize_split(rows, labels, data, tokenizer, progress=lambda done: progress(done, total))
    if kept is not None and key:
        kept.keep_rows(key, split)
    return TrialInputs(tokenizer=tokenizer, pad_id=tokenizer.pad_token_id, split=split, key=key)


def load_split(
    model: ModelConfig, data: DataConfig, *, data_root: str | None
) -> tuple[DataSplit, list[str] | None]:
    """The rows, and the label names in the order of the class numbers (None for a language model).

    Raises: DataError, UserError.
    """
    labelled = model.task == "sequence_classification"
    try:
        rows = load_rows(data, data_root=data_root, labelled=labelled)
    except DatasetNotCached as error:
        raise DatasetNotCached(f"data.path: {error}") from error
    if not labelled:
        return rows, None
    labels = class_order(model, rows.labels)
    return with_class_order(rows, labels), labels


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
    labelled = labels is not None
    train = tokenize_rows(
        rows.train, data, tokenizer, labelled=labelled, progress=progress, kind="training rows"
    )
    validation = tokenize_rows(rows.validation, data, tokenizer, labelled=labelled, kind="validation rows")
    both = train + validation
    check_left_out(both, data)
    return TokenizedSplit(
        train=train,
        validation=validation,
        labels=None if labels is None else list(labels),
        warnings=[*both.warnings, *rows.warnings],
    )

"""The tokenized rows of a study with `data.streaming`: read, tokenized and written a few at a time, once a study.

    sources -> RowStream (checked in a first reading) -> blocks of 512 rows -> KEY.tokens -> TokenizedSplit of its rows

KEY is that of prepared_rows.py, so a file with other content is another file. One process writes it, under a lock; the
others, also other ranks and trials on other nodes, wait and read it. Without a key, or a folder that can be written,
the file is of this process alone.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import transformers

from hpotune.config.schema.study_config import DataConfig, ModelConfig
from hpotune.config.yaml_source import Value
from hpotune.errors import StoreError
from hpotune.finetune.data.mixture import of_source, read_sources, source_text
from hpotune.finetune.data.prepared_rows import PARTS, TokenizedSplit
from hpotune.finetune.data.row_stream import DrawnRow, RowStream, stream_rows
from hpotune.finetune.data.stored_sequence import Positions
from hpotune.finetune.data.token_file import TokenFile, TokenFileWriter
from hpotune.finetune.data.tokenization import RowReport, TokenizedRow, tokenized_block
from hpotune.finetune.model import hub
from hpotune.finetune.trial_errors import DataError
from hpotune.workspace.lock import open_lock_file, this_process, wait_for_lock, write_lock

ENDING = ".tokens"
NONE, USED, LEFT_OUT = 0, 1, 2
"""What became of a row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Streams:
    """The rows of all sources."""

    sources: list[RowStream]
    labels: list[str] | None
    """As TokenizedSplit.labels."""

    @property
    def train_count(self) -> int:
        """The number of training rows."""
        return sum(one.train_count for one in self.sources)


def open_streams(model: ModelConfig, data: DataConfig, *, data_root: str | None) -> Streams:
    """The rows of all sources, with the class numbers of the model; the errors are those of `load_split`."""
    sources, labels = read_sources(model, data, data_root=data_root, read=stream_rows, ordered=_with_order)
    return Streams(sources=sources, labels=labels)


def streamed_split(
    streams: Callable[[], Streams],
    data: DataConfig,
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    folder: Path | None,
    key: str | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TokenizedSplit:
    """The rows of the file of a key in a folder, which is written if it is not there.

    `streams` opens the rows. `progress` is called with the number of training rows that are done, and that of all.
    Raises: DataError, UserError.
    """
    if folder is None or key is None or not _can_write(folder):
        alone = hub.private_cache() / f"{secrets.token_hex(8)}{ENDING}"
        split = _written(alone, streams(), data, tokenizer, progress)
        alone.unlink()  # it is open
        return split
    path = folder / f"{key}{ENDING}"
    if (found := find_streamed(path)) is not None:
        return found
    with _one_writer(path):
        return find_streamed(path) or _written(path, streams(), data, tokenizer, progress)


def find_streamed(path: Path) -> TokenizedSplit | None:
    """The rows of a file; None if there is none, or it is not complete."""
    try:
        return _split_of(TokenFile(path))
    except (OSError, ValueError, LookupError):
        return None


def _with_order(stream: RowStream, order: Sequence[str]) -> RowStream:
    """The rows with class numbers by `order`, which holds every name of the stream."""
    read, numbers = stream.read_label, [order.index(name) for name in stream.labels]
    assert read is not None, "the rows of a classification have labels"

    def renumbered(value: Value) -> Value:
        label = read(value)
        if isinstance(label, list):
            return [numbers[cast(int, one)] for one in label]
        return None if label is None else numbers[cast(int, label)]

    return replace(stream, labels=list(order), read_label=renumbered)


def _split_of(file: TokenFile) -> TokenizedSplit:
    train, validation = (file.rows(name) for name in PARTS)
    about = file.about
    return TokenizedSplit(
        train=train,
        validation=validation,
        labels=about["labels"],
        warnings=about["warnings"],
        longest_and_largest=(about["longest"], about["largest_id"]),
    )


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


@contextmanager
def _one_writer(path: Path) -> Iterator[None]:
    """Hold the lock of a file, and remove what a killed writer has left; where there are no locks, go on without."""
    with ExitStack() as held:
        try:
            lock = path.with_name(f".{path.name}.lock")
            file = held.enter_context(open_lock_file(lock))
            wait_for_lock(file, lock, what="reads and tokenizes the rows (data.streaming)")
            write_lock(file, this_process())
        except StoreError:
            yield
            return
        for left in path.parent.glob(f".{path.name}.*.part"):
            left.unlink(missing_ok=True)
        yield


def _written(
    path: Path,
    streams: Streams,
    data: DataConfig,
    tokenizer: transformers.PreTrainedTokenizerBase,
    progress: Callable[[int, int], None],
) -> TokenizedSplit:
    """Tokenize all rows into the file.

    Raises: DataError, also for a disk that is full; UserError.
    """
    warnings: list[str] = []
    orders: dict[str, list[Positions]] = {f"{name}{end}": [] for name in PARTS for end in ("", " left out")}
    done, total = 0, streams.train_count

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, total)

    with ExitStack() as opened:
        with _of_disk(path):
            writer = TokenFileWriter(path)
        opened.callback(writer.close)
        for stream in streams.sources:
            with of_source(stream.source):
                own = _SourceWriter(stream, writer, path)
                for block in stream.blocks():
                    own.add(block, tokenizer, labelled=streams.labels is not None)
                    count(sum(index >= stream.held_out for index, _ in block))
                report = own.checked()
            warnings += [source_text(text, stream.source) for text in report.warnings]
            for name, order in own.orders().items():
                orders[name].append(order)
        warnings += [text for stream in streams.sources for text in stream.warnings]
        about = {"labels": streams.labels, "warnings": warnings}
        with _of_disk(path):
            file = writer.finish(about, {name: np.concatenate(parts) for name, parts in orders.items()})
    return _split_of(file)


class _SourceWriter:
    """Writes the rows of one source, and knows which row became what."""

    def __init__(self, stream: RowStream, writer: TokenFileWriter, path: Path) -> None:
        self._stream, self._writer, self._path = stream, writer, path
        self._state = np.zeros(len(stream.order), dtype=np.int8)
        self._position = np.zeros(len(stream.order), dtype=np.int64)
        self._both, self._train, self._validation = RowReport(), RowReport(), RowReport()

    def add(
        self,
        block: Sequence[DrawnRow],
        tokenizer: transformers.PreTrainedTokenizerBase,
        *,
        labelled: bool,
    ) -> None:
        """Tokenize and write a block. While that is done, a row's number is its drawn index, by which it is known."""
        numbers = {index: row.number for index, row in block}
        rows = [replace(row, number=index) for index, row in block]
        for done in tokenized_block(rows, self._stream.config, tokenizer, labelled=labelled):
            index, number = done.number, numbers[done.number]
            part = self._train if index >= self._stream.held_out else self._validation
            part.add(done, number=number)
            self._both.add(done, number=number)
            self._state[index] = USED if isinstance(done, TokenizedRow) else LEFT_OUT
            with _of_disk(self._path):
                self._position[index] = self._writer.add(done, number=number)

    def checked(self) -> RowReport:
        """The report of all rows.

        Raises: DataError if too few can be used.
        """
        self._train.check_any_used(self._stream.config, "training rows")
        self._validation.check_any_used(self._stream.config, "validation rows")
        self._both.check_left_out(self._stream.config)
        return self._both

    def orders(self) -> dict[str, Positions]:
        """The positions in the file of the rows of each part, as they were drawn."""
        held_out = self._stream.held_out
        found = {}
        for name, part in (("train", slice(held_out, None)), ("validation", slice(0, held_out))):
            state, position = self._state[part], self._position[part]
            found[name] = position[state == USED]
            found[f"{name} left out"] = position[state == LEFT_OUT]
        return found


@contextmanager
def _of_disk(path: Path) -> Iterator[None]:
    """A context in which an error of the disk says what was to be written."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"data.streaming: {path.parent}: the tokens of the rows cannot be written ({error.strerror or error}); "
            "free space there (about 8 bytes a token), or write data.rows"
        ) from error

"""The rows of one split: of a file, of a folder, of a folder of `save_to_disk`, or of the Hugging Face hub.

With `data.streaming` files are read anew whenever rows are taken, and Arrow tables lie on a disk.

`datasets` finds the files of a split, and only the split that is asked for is read. CSV and JSON files are read by
config/rows/data_files.py, because datasets guesses a type for each column: `007` becomes 7, a date a time stamp.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path
from typing import cast

import datasets

from hpotune.config.rows.arrow_rows import arrow_table, parquet_table
from hpotune.config.rows.csv_rows import csv_columns, csv_rows
from hpotune.config.rows.data_files import DATA_FILES, file_table
from hpotune.config.rows.json_rows import json_rows
from hpotune.config.rows.local_samples import card_configs
from hpotune.config.rows.row_table import RowTable, concatenated, renumbered, table_of
from hpotune.config.rows.streamed_table import streamed_file, streamed_parquet, streamed_rows
from hpotune.config.rows.text_encoding import DataFileError
from hpotune.config.schema.study_config import DataConfig
from hpotune.config.yaml_source import Value
from hpotune.errors import inner_reason, nearest
from hpotune.finetune.model import hub
from hpotune.finetune.trial_errors import DataError, DatasetNotCached
from hpotune.workspace.fetched_lock import S3

SPLIT_OF_A_FILE = "train"
READ_ERRORS = (
    *(ValueError, TypeError, LookupError, NotImplementedError, OSError, EOFError),
    datasets.exceptions.DatasetGenerationError,
)
"""What datasets, pyarrow and the decompressors raise for files that they cannot read."""
DESCRIPTIONS = {"dataset_infos.json", "dataset_info.json"}
"""Files of a dataset that hold no rows."""
KNOWN_OPTIONS = {
    "csv": {"sep", "delimiter", "names", "column_names", "features"},
    "json": {"field", "features"},
}
"""Options of a dataset's card that are followed."""


def split_table(config: DataConfig, *, split: str, data_root: str | None) -> RowTable:
    """The rows of a split, in their stored order.

    Raises: DataError if it cannot be read, with the file and the inner reason.
    """
    if config.path.startswith(S3):
        raise DatasetNotCached(f"data.path: {hub.not_fetched(config.path)}")
    path = Path(hub.local_path(config.path, data_root)).expanduser()
    try:
        if path.is_file():
            _check_file(path, split)
            return streamed_file(path) if config.streaming else file_table(path)
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return _saved_table(path, split)
        if path.is_dir():
            return _folder_table(path, config, split)
        return _hub_table(config, split)
    except DataFileError as error:
        raise DataError(f"data.path: {error}") from error
    except DataError:
        raise
    except READ_ERRORS as error:
        raise DataError(f"data.path: {config.path} ({split}): {inner_reason(error)}") from error


def _check_file(file: Path, split: str) -> None:
    if file.suffix not in DATA_FILES:
        raise DataError(f"data.path: {file.name}: needs one of the file endings {', '.join(DATA_FILES)}")
    if split != SPLIT_OF_A_FILE:
        raise DataError(
            f"data.split: {split!r}: a single file has one split, train; give a folder for others"
        )


def _saved_table(folder: Path, split: str) -> RowTable:
    """The rows of a folder of `Dataset.save_to_disk` (one split, of any name) or `DatasetDict.save_to_disk`."""
    saved = datasets.load_from_disk(str(folder), keep_in_memory=False)
    if isinstance(saved, datasets.DatasetDict):
        _check_split(split, list(saved))
        return _dataset_table(saved[split])
    if split not in (SPLIT_OF_A_FILE, str(saved.split)):
        raise DataError(f"data.split: {split!r}: {folder} holds one split, {saved.split or SPLIT_OF_A_FILE}")
    return _dataset_table(saved)


def _folder_table(folder: Path, config: DataConfig, split: str) -> RowTable:
    # A cache of its own: datasets caches a folder with a card by its name, and could return another folder's rows.
    with _cache_of(folder, config) as cache:
        builder = datasets.load_dataset_builder(str(folder), config.name, cache_dir=cache)
        files = builder.config.data_files
        _check_split(split, list(files))
        read = {Path(file).resolve() for some in files.values() for file in some}
        warnings = tuple(_unread_files(folder, read))
        if _format(builder) in KNOWN_OPTIONS:
            return replace(_text_table(builder, files[split], streaming=config.streaming), warnings=warnings)
        if _format(builder) == "parquet":
            table = _parquet_table(builder, files[split], streaming=config.streaming)
            return replace(table, warnings=warnings)
        builder.config.data_files = datasets.data_files.DataFilesDict({split: files[split]})
        builder.download_and_prepare(verification_mode="no_checks")  # the card counts the rows of all splits
        return _dataset_table(builder.as_dataset(split=split, in_memory=not config.streaming))


@contextmanager
def _cache_of(folder: Path, config: DataConfig) -> Iterator[str]:
    """A folder for the Arrow tables of `datasets`: as long as it is used, with streaming as long as the process."""
    if config.streaming:
        yield str(hub.private_cache() / f"streamed-{hub.folder_fingerprint(folder)}")
        return
    with tempfile.TemporaryDirectory(prefix="hpotune-rows-") as cache:
        yield cache


def _unread_files(folder: Path, read: Set[Path]) -> Iterator[str]:
    """A sentence about data files of other formats than those of any split, which `datasets` leaves out."""
    endings = {path.suffix for path in read}
    if endings.isdisjoint(DATA_FILES) or card_configs(folder / "README.md"):
        return
    formats = {DATA_FILES[ending] for ending in endings & DATA_FILES.keys()}
    others = sorted(
        path.name
        for path in folder.rglob("*")
        if DATA_FILES.get(path.suffix, "") not in {"", *formats} and path.name not in DESCRIPTIONS
    )
    if others:
        yield (
            f"data.path: files of another format in {folder} are not read: {', '.join(others[:5])}"
            f"{f' and {len(others) - 5} more' if len(others) > 5 else ''}; convert them to {', '.join(sorted(formats))}"
        )


def _hub_table(config: DataConfig, split: str) -> RowTable:
    builder = cast(datasets.DatasetBuilder, hub.hub_builder(config.path, config.name, config.revision))
    if _format(builder) in KNOWN_OPTIONS:
        _check_split(split, list(builder.config.data_files))
        return _text_table(builder, builder.config.data_files[split], streaming=config.streaming)
    builder.download_and_prepare()
    _check_split(split, list(builder.info.splits))
    return _dataset_table(builder.as_dataset(split=split))


def _format(builder: datasets.DatasetBuilder) -> str:
    """The format of a builder that reads files; else the name of its module."""
    return type(builder).__module__.rpartition(".")[2]


def _text_table(builder: datasets.DatasetBuilder, files: Sequence[str], *, streaming: bool) -> RowTable:
    """The rows of CSV or JSON files, downloaded and decompressed where they need it."""
    options = _card_options(builder)
    manager = datasets.DownloadManager(
        dataset_name=builder.dataset_name, base_path=builder.base_path, download_config=_download(builder)
    )
    local = [Path(file) for file in manager.iter_files(manager.download_and_extract(list(files)))]
    columns: list[str] = []
    if _format(builder) == "csv":
        names = cast("list[str] | None", options.get("names") or options.get("column_names"))
        sign = cast("str | None", options.get("delimiter") or options.get("sep"))
        columns = [name for file in local for name in names or csv_columns(file, delimiter=sign)]

        def read(file: Path) -> Iterator[dict[str, Value]]:
            return csv_rows(file, delimiter=sign, names=names)

    else:
        field = cast("str | None", options.get("field"))
        if field is not None and streaming:
            raise DataError(
                f"data.streaming: the card of {builder.dataset_name} sets field, so that its files are read as a "
                "whole; convert them to JSON Lines, or write streaming: false"
            )

        def read(file: Path) -> Iterator[dict[str, Value]]:
            return json_rows(file, field=field)

    def rows() -> Iterator[dict[str, Value]]:
        return chain.from_iterable(read(file) for file in local)

    if streaming:
        table = streamed_rows(rows, name=str(builder.dataset_name), columns=columns)
    else:
        table = table_of(rows(), columns=columns)
    return replace(table, class_names=_class_names(builder.info.features))


def _parquet_table(builder: datasets.DatasetBuilder, files: Sequence[str], *, streaming: bool) -> RowTable:
    """The rows of Parquet files on this machine; a column that a file lacks is missing in its rows."""
    names, table_of_file = (
        _class_names(builder.info.features),
        streamed_parquet if streaming else parquet_table,
    )
    return concatenated([renumbered(table_of_file(Path(file)), names) for file in files])


def _download(builder: datasets.DatasetBuilder) -> datasets.DownloadConfig:
    return datasets.DownloadConfig(token=builder.token, storage_options=builder.storage_options)


def _card_options(builder: datasets.DatasetBuilder) -> dict[str, object]:
    """The options of the card that differ from their defaults.

    Raises: DataError for an option that changes how text is read.
    """
    shared = {field.name for field in fields(datasets.BuilderConfig)}
    usual = type(builder.config)(name=builder.config.name)
    options = {
        field.name: getattr(builder.config, field.name)
        for field in fields(builder.config)
        if field.name not in shared and getattr(builder.config, field.name) != getattr(usual, field.name)
    }
    unknown = sorted(options.keys() - KNOWN_OPTIONS[_format(builder)])
    if unknown:
        raise DataError(
            f"data.path: the card of {builder.dataset_name} sets {unknown[0]}, which is not followed; "
            f"it may set {', '.join(sorted(KNOWN_OPTIONS[_format(builder)]))}"
        )
    return options


def _class_names(features: datasets.Features | None) -> dict[str, list[str]]:
    return {
        name: list(feature.names)
        for name, feature in (features or {}).items()
        if isinstance(feature, datasets.ClassLabel)
    }


def _dataset_table(data: datasets.Dataset) -> RowTable:
    def take(indices: Sequence[int]) -> object:
        return data.select(list(indices)).with_format("arrow")[:]

    table = arrow_table(data.data.table, take=take)
    return replace(table, count=len(data), class_names=_class_names(data.features))


def _check_split(split: str, splits: Iterable[str]) -> None:
    if split not in splits:
        raise DataError(f"data.split: no split {split!r}; {nearest(split, map(str, splits))}")

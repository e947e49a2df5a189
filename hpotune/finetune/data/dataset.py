"""The rows of a study: loaded, shuffled with its seed, and split; tokenization.py makes tokens of them.

Every subset is taken after shuffling, a slice such as train[:1000] too: public datasets are often sorted by label.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import datasets
import numpy as np

from hpotune.config.paths import DATA_FILES
from hpotune.config.schema.study_config import DataConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.model import hub
from hpotune.finetune.trial_errors import DataError

SLICE = re.compile(r"(?P<split>[\w.]+)\[(?P<low>-?\d*)(?P<low_unit>%?):(?P<high>-?\d*)(?P<high_unit>%?)\]")
LABEL = "label"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRow:
    """One row as it is stored, with its columns under the names that prompts expect."""

    number: int
    """Its position in the split, from 0."""
    values: dict[str, Value]


Rows = list[DataRow]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSplit:
    """The training and validation rows of a study; the same for all its trials."""

    train: Rows
    validation: Rows
    labels: list[str]
    """The names of the classes of a classification, in the order of their numbers; none for a language model."""

    @property
    def num_labels(self) -> int:
        """Classes of a classification; 0 for a language model."""
        return len(self.labels)

    @property
    def warnings(self) -> list[str]:
        """Warnings about the rows of a classification."""
        labels = {str(row.values[LABEL]) for row in self.train}
        if len(labels) > 1:
            return []
        label = next(iter(labels))
        return [f"all {len(self.train)} training rows have the label {label}: nothing can be learned"]


def load_rows(config: DataConfig, *, data_root: str | None, labelled: bool) -> DataSplit:
    """The rows for training and for validation.

    Raises: DataError if the data, a column or a split is missing.
    """
    data = datasets.concatenate_datasets(
        [_load_part(part, config, data_root) for part in config.split.split("+")]
    )
    _check_columns(data, config)
    order = np.random.default_rng(config.seed).permutation(len(data))[: config.rows]
    held_out = _validation_rows(config.validation, len(order))
    rows = [
        DataRow(
            number=int(number), values=row | {ours: row[theirs] for ours, theirs in config.columns.items()}
        )
        for number, row in zip(order, data.select(order).to_list(), strict=True)
    ]
    classes = _label_classes(data, config.columns.get(LABEL, LABEL)) if labelled else {}
    rows = _with_class_numbers(rows, classes) if labelled else rows
    labels = _class_names(data.features[config.columns.get(LABEL, LABEL)], classes) if labelled else []
    return DataSplit(train=rows[held_out:], validation=rows[:held_out], labels=labels)


def _load_part(part: str, config: DataConfig, data_root: str | None) -> datasets.Dataset:
    """A split, or a slice of the split shuffled with the seed."""
    part = part.replace(" ", "")
    match = SLICE.fullmatch(part)
    if match is None:
        return _load_split(config, split=part, data_root=data_root)
    data = _load_split(config, split=match["split"], data_root=data_root)
    order = np.random.default_rng(config.seed).permutation(len(data))
    return data.select(order[_slice(match, len(order))])


def _load_split(config: DataConfig, *, split: str, data_root: str | None) -> datasets.Dataset:
    """The split in its stored order.

    Raises: DataError if it cannot be read.
    """
    path = Path(hub.local_path(config.path, data_root)).expanduser()
    try:
        if not path.exists():
            with hub.redirected_datasets(None):  # the shared cache may be read-only
                return datasets.load_dataset(config.path, config.name, split=split, revision=config.revision)
        # A cache of its own: datasets caches a folder with a card by its name, and could return another folder's rows.
        with tempfile.TemporaryDirectory(prefix="hpotune-rows-") as cache:
            source: dict[str, str | None]
            if path.is_file():
                source = {"path": _builder(path), "data_files": str(path)}
            else:
                source = {"path": str(path), "name": config.name}
            return datasets.load_dataset(**source, split=split, cache_dir=cache, keep_in_memory=True)
    except (ValueError, OSError, datasets.exceptions.DatasetGenerationError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"data.path: {config.path} ({split}): {lines[0]}") from error


def _builder(file: Path) -> str:
    if file.suffix not in DATA_FILES:
        raise DataError(f"data.path: {file.name}: needs one of the file endings {', '.join(DATA_FILES)}")
    return DATA_FILES[file.suffix]


def _check_columns(data: datasets.Dataset, config: DataConfig) -> None:
    missing = sorted(set(config.columns.values()) - set(data.column_names))
    if missing:
        raise DataError(
            f"data.columns: no column {missing[0]!r}; the data has {', '.join(data.column_names)}"
        )


def _slice(match: re.Match[str], rows: int) -> slice:
    def bound(text: str, unit: str) -> int | None:
        if not text:
            return None
        return round(int(text) * rows / 100) if unit else int(text)

    return slice(bound(match["low"], match["low_unit"]), bound(match["high"], match["high_unit"]))


def _validation_rows(validation: float, rows: int) -> int:
    held_out = max(1, round(validation * rows)) if 0 < validation < 1 else int(validation)
    if held_out >= rows:
        raise DataError(
            f"data.validation: {validation} of {rows} rows leaves none for training; lower it or use more rows"
        )
    return held_out


def _label_classes(data: datasets.Dataset, column: str) -> dict[str | int | float, int]:
    """Label as stored -> class number; labels that are not a ClassLabel feature are numbered in sorted order."""
    if column not in data.column_names:
        raise DataError(
            f"no column {column!r}; the data has {', '.join(data.column_names)}; see data.columns"
        )
    feature = data.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return {number: number for number in range(feature.num_classes)}
    return {label: number for number, label in enumerate(sorted(set(data[column])))}


def _class_names(feature: object, classes: Mapping[str | int | float, int]) -> list[str]:
    """The names of the classes in the order of their numbers: of a ClassLabel feature, else the labels as text."""
    return (
        list(feature.names) if isinstance(feature, datasets.ClassLabel) else [str(label) for label in classes]
    )


def _with_class_numbers(rows: Rows, classes: Mapping[str | int | float, int]) -> Rows:
    """The rows with class numbers as labels.

    Raises: DataError for a label that is no class.
    """
    numbered: Rows = []
    for row in rows:
        label = cast("str | int | float", row.values[LABEL])
        if label not in classes:
            raise DataError(f"a row has the label {label!r}; the data has {', '.join(map(str, classes))}")
        numbered.append(replace(row, values=row.values | {LABEL: classes[label]}))
    return numbered

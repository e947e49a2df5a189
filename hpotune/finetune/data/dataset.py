"""The training rows of a trial: read, shuffled with the study's seed, divided, and turned into tokens.

Everything is drawn after shuffling, also a slice such as train[:1000]: public sets are often sorted by label.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np

from hpotune.config.paths import DATA_FILES
from hpotune.config.schema.study_config import DataConfig, Json
from hpotune.finetune.data.prompt import encode, pieces, question
from hpotune.finetune.model import hub
from hpotune.finetune.training.loss import IGNORED, Row
from hpotune.finetune.trial_errors import DataError

SLICE = re.compile(r"(?P<split>[\w.]+)\[(?P<low>-?\d*)(?P<low_unit>%?):(?P<high>-?\d*)(?P<high_unit>%?)\]")
LABEL = "label"
Rows = list[dict[str, Json]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The rows of a study; the same for all its trials."""

    train: Rows
    validation: Rows
    labels: int
    """Classes of a classification; 0 without."""

    @property
    def warnings(self) -> list[str]:
        """What the user should know of a classification's rows."""
        seen = {row[LABEL] for row in self.train}
        if len(seen) > 1:
            return []
        label = next(iter(seen))
        return [f"all {len(self.train)} training rows have the label {label}: nothing can be learned"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """Rows in tokens, and what was lost on the way."""

    rows: list[Row]
    dropped: int
    """Rows left out, because max_length cut their whole answer away."""
    cut: int
    """Rows kept, but shortened."""


def read(config: DataConfig, *, data_root: str | None, labelled: bool) -> Parts:
    """The rows for training and for validation.

    Raises: DataError where the data is not there, or a column or a split is missing.
    """
    data = datasets.concatenate_datasets(
        [_drawn(part, config, data_root) for part in config.split.split("+")]
    )
    _check_columns(data, config)
    order = np.random.default_rng(config.seed).permutation(len(data))[: config.rows]
    held = _held_out(config.validation, len(order))
    rows = [
        row | {ours: row[theirs] for ours, theirs in config.columns.items()}
        for row in data.select(order).to_list()
    ]
    numbers = _numbers(data, config.columns.get(LABEL, LABEL)) if labelled else {}
    rows = _numbered(rows, numbers) if labelled else rows
    return Parts(train=rows[held:], validation=rows[:held], labels=len(numbers))


def tokenise(
    rows: Sequence[dict[str, Json]], config: DataConfig, tokenizer: Json, *, labelled: bool
) -> Tokens:
    """The rows in tokens; rows without anything to learn from are dropped and counted.

    Raises: DataError where none is left, or a column is missing.
    """
    done, dropped, cut = [], 0, 0
    for row in rows:
        if labelled:
            ids = tokenizer(question(row, config), truncation=True, max_length=config.max_length)["input_ids"]
            tokens = Row(ids=list(ids), targets=[int(row[LABEL])])
        else:
            special = config.prompt != "chat"
            tokens = encode(
                pieces(row, config, tokenizer), tokenizer, max_length=config.max_length, special=special
            )
        if labelled or any(target != IGNORED for target in tokens.targets[1:]):
            cut += len(tokens.ids) == config.max_length
            done.append(tokens)
        else:
            dropped += 1
    if rows and not done:
        raise DataError(
            f"data.max_length: {config.max_length} cuts the answer out of all {dropped} rows; raise it"
        )
    return Tokens(rows=done, dropped=dropped, cut=cut)


def _drawn(part: str, config: DataConfig, data_root: str | None) -> datasets.Dataset:
    """A split, or a slice of it in the order that `seed` gives it."""
    part = part.replace(" ", "")
    match = SLICE.fullmatch(part)
    if match is None:
        return _load(config, split=part, data_root=data_root)
    data = _load(config, split=match["split"], data_root=data_root)
    order = np.random.default_rng(config.seed).permutation(len(data))
    return data.select(order[_slice(match, len(order))])


def _load(config: DataConfig, *, split: str, data_root: str | None) -> datasets.Dataset:
    """The split as it is stored.

    Raises: DataError where it cannot be read.
    """
    path = Path(hub.local_path(config.path, data_root)).expanduser()
    try:
        if not path.exists():
            with hub.redirected_datasets(None):  # what the shared cache holds can be read, but not locked
                return datasets.load_dataset(config.path, config.name, split=split, revision=config.revision)
        # A cache of its own: datasets caches a folder with a card by its name, and would give another's rows.
        with tempfile.TemporaryDirectory(prefix="hpotune-rows-") as cache:
            place: dict[str, str | None]
            if path.is_file():
                place = {"path": _builder(path), "data_files": str(path)}
            else:
                place = {"path": str(path), "name": config.name}
            return datasets.load_dataset(**place, split=split, cache_dir=cache, keep_in_memory=True)
    except (ValueError, OSError, datasets.exceptions.DatasetGenerationError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"data.path: {config.path} ({split}): {lines[0]}") from error


def _builder(file: Path) -> str:
    if file.suffix not in DATA_FILES:
        raise DataError(f"data.path: {file.name}: a file needs one of the endings {', '.join(DATA_FILES)}")
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


def _held_out(wanted: float, rows: int) -> int:
    held = max(1, round(wanted * rows)) if 0 < wanted < 1 else int(wanted)
    if held >= rows:
        raise DataError(
            f"data.validation: {wanted} of {rows} rows leaves none for training; lower it or use more rows"
        )
    return held


def _numbers(data: datasets.Dataset, column: str) -> dict[Json, int]:
    """The label as stored -> its number; labels without names of their own are numbered in their order."""
    if column not in data.column_names:
        raise DataError(
            f"no column {column!r}; the data has {', '.join(data.column_names)}; see data.columns"
        )
    feature = data.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return {number: number for number in range(feature.num_classes)}
    return {label: number for number, label in enumerate(sorted(set(data[column])))}


def _numbered(rows: Rows, numbers: dict[Json, int]) -> Rows:
    for row in rows:
        if row[LABEL] not in numbers:
            raise DataError(
                f"a row has the label {row[LABEL]!r}; the data has {', '.join(map(str, numbers))}"
            )
    return [row | {LABEL: numbers[row[LABEL]]} for row in rows]

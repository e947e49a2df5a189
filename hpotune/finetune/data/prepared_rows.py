"""The tokenized rows of a study, in memory and on disk: a rehearsal writes them, trials read them instead of the data.

The name of a file is a hash of all that the rows depend on: the section `data`, the model's task, the data's files,
the tokenizer, the versions of the libraries. A file that does not fit is not found; the trial then tokenizes the rows.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import transformers

from hpotune.config.schema.study_config import DataConfig, ModelConfig
from hpotune.finetune.data.tokenization import LeftOutRow, TokenizedRow, TokenizedRows
from hpotune.finetune.model import hub
from hpotune.finetune.training.loss import Row

LIBRARIES = ("hpotune", "transformers", "tokenizers", "datasets")
PARTS = ("train", "validation")
COMMIT = re.compile("[0-9a-f]{40}")
FORMAT = 2
"""Of the file; a change makes older files unfit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedSplit:
    """The rows of a study as tokens."""

    train: TokenizedRows
    validation: TokenizedRows
    labels: list[str] | None
    """The names of the classes in the order of their numbers; None for a language model."""
    warnings: list[str]
    longest_and_largest: tuple[int, int] | None = None
    """Tokens of the longest row and the largest id of a token, of all rows; None: nobody has looked."""

    @property
    def both(self) -> TokenizedRows:
        """Training and validation rows."""
        return self.train + self.validation


def prepared_key(
    model: ModelConfig,
    data: DataConfig,
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    data_root: str | None,
) -> str | None:
    """The hash for these sections; None if the data is on a hub, where it may change, or the tokenizer is slow.

    At a full commit, as `hpotune fetch` writes it, data on a hub does not change.
    """
    origins = [_origin(one, data_root) for one in data.sources.values()]
    if None in origins or not tokenizer.is_fast:
        return None
    facts = [
        FORMAT,
        data.unweighted.model_dump(mode="json"),
        [model.task, model.num_labels, model.path if model.task == "sequence_classification" else None],
        *([model.problem_type] if model.problem_type else []),
        origins,
        tokenizer.backend_tokenizer.to_str(),
        [tokenizer.chat_template, tokenizer.eos_token_id, tokenizer.pad_token_id],
        [importlib.metadata.version(name) for name in LIBRARIES],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _origin(source: DataConfig, data_root: str | None) -> str | None:
    """What changes when the rows of a source do; None: that is not known."""
    path = Path(hub.local_path(source.path, data_root)).expanduser()
    if path.exists():
        return hub.folder_fingerprint(path)
    return f"{source.path}@{source.revision}" if COMMIT.fullmatch(source.revision or "") else None


def find_prepared(folder: Path, key: str) -> TokenizedSplit | None:
    """The rows of a key; None if there are none, or their file is damaged. Their texts are not kept."""
    try:
        with np.load(folder / f"{key}.npz", allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            parts = [_part(arrays, name, about[name], about[f"{name} sources"]) for name in PARTS]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return TokenizedSplit(
        train=parts[0], validation=parts[1], labels=about["labels"], warnings=about["warnings"]
    )


def write_prepared(folder: Path, key: str, split: TokenizedSplit) -> None:
    """Write the rows, atomically.

    Raises: OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, object] = {"labels": split.labels, "warnings": split.warnings}
    for name, rows in zip(PARTS, (split.train, split.validation), strict=True):
        arrays |= _arrays(name, rows.used)
        about[name] = [asdict(row) for row in rows.left_out]
        about[f"{name} sources"] = list(dict.fromkeys(row.source for row in rows.used))
    unfinished = folder / f"{key}.{os.getpid()}.tmp"
    with unfinished.open("wb") as stream:
        np.savez_compressed(stream, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
    unfinished.replace(folder / f"{key}.npz")


def _arrays(name: str, rows: Sequence[TokenizedRow]) -> dict[str, np.ndarray]:
    """Shapes: number, length, targets, cut, lost: (rows,); ids: (tokens,); target ids: (targets,)."""
    sources = {source: number for number, source in enumerate(dict.fromkeys(row.source for row in rows))}
    classes = [row.tokens.classes for row in rows]
    labels: dict[str, np.ndarray] = {}
    if None not in classes:
        each = [one for found in classes for one in found or ()]
        labels[f"{name}/classes"] = np.array(each, dtype=np.int64)
        labels[f"{name}/class_counts"] = np.array([len(found or ()) for found in classes], dtype=np.int64)
    if all(row.tokens.number is not None for row in rows):
        labels[f"{name}/numbers"] = np.array([row.tokens.number for row in rows], dtype=np.float64)
    return labels | {
        f"{name}/source": np.array([sources[row.source] for row in rows], dtype=np.int32),
        f"{name}/number": np.array([row.number for row in rows], dtype=np.int64),
        f"{name}/length": np.array([len(row.tokens.ids) for row in rows], dtype=np.int64),
        f"{name}/targets": np.array([len(row.tokens.targets) for row in rows], dtype=np.int64),
        f"{name}/cut": np.array([row.is_cut for row in rows], dtype=bool),
        f"{name}/lost": np.array([row.lost_answers for row in rows], dtype=np.int64),
        f"{name}/ids": np.array([one for row in rows for one in row.tokens.ids], dtype=np.int32),
        f"{name}/target_ids": np.array([one for row in rows for one in row.tokens.targets], dtype=np.int32),
    }


def _part(
    arrays: np.lib.npyio.NpzFile, name: str, left_out: Sequence[dict[str, object]], sources: Sequence[str]
) -> TokenizedRows:
    ids = np.split(arrays[f"{name}/ids"], np.cumsum(arrays[f"{name}/length"])[:-1])
    targets = np.split(arrays[f"{name}/target_ids"], np.cumsum(arrays[f"{name}/targets"])[:-1])
    columns = (arrays[f"{name}/{column}"].tolist() for column in ("number", "cut", "lost", "source"))
    numbers = arrays[f"{name}/numbers"].tolist() if f"{name}/numbers" in arrays else None
    classes = None
    if f"{name}/classes" in arrays:
        ends = np.cumsum(arrays[f"{name}/class_counts"])[:-1]
        classes = [tuple(found.tolist()) for found in np.split(arrays[f"{name}/classes"], ends)]
    used = [
        TokenizedRow(
            number=number,
            pieces=[],
            tokens=Row(
                ids=ids[index].tolist(),
                targets=targets[index].tolist(),
                classes=None if classes is None else classes[index],
                number=None if numbers is None else numbers[index],
            ),
            is_cut=is_cut,
            lost_answers=lost,
            source=sources[source],
        )
        for index, (number, is_cut, lost, source) in enumerate(zip(*columns, strict=True))
    ]
    return TokenizedRows(used=used, left_out=[LeftOutRow(**row) for row in left_out])  # type: ignore[arg-type]

"""The label names of a classification: their order, their copy in the model's config and beside the adapter.

Class i is the i-th name. A base model with a classification head of its own has an order of its own, which is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import transformers

from hpotune.config.schema.study_config import ModelConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.data.dataset import LABEL, DataRow, DataSplit
from hpotune.finetune.model import hub
from hpotune.finetune.trial_errors import DataError, UserError

FILE = "labels.json"
"""File in the adapter's folder: the label names, a JSON list in the order of the class numbers."""
GENERIC = re.compile(r"LABEL_\d+")
"""Names that transformers gives to classes without names."""
WHOLE_NUMBER = re.compile(r"0|[1-9]\d*", re.ASCII)
HEAD = "ForSequenceClassification"
MIN_CLASSES = 2


def class_order(config: ModelConfig, names: Sequence[str]) -> list[str]:
    """The label names in the order of the class numbers, one for each output of the head.

    The base model's own order if its label2id holds every name, else `names` in their order. Classes without a row
    (model.num_labels above the number of names) are called LABEL_i, as transformers calls them.

    Whole numbers below the number of outputs of the head, or model.num_labels, are the numbers of their classes.

    Raises: DataError if the rows hold more labels than model.num_labels, UserError if the base model's head has other
    labels.
    """
    order = _base_order(config, names)
    numbered = _numbered_order(config, names)
    if numbered is not None and order == list(names):
        return numbered
    wanted = config.num_labels or max(MIN_CLASSES, len(order))
    if len(order) > wanted:
        raise DataError(
            f"model.num_labels: {wanted}, but there are {len(order)} labels ({', '.join(order)}); raise it"
        )
    return [*order, *(f"LABEL_{number}" for number in range(len(order), wanted))]


def _base_order(config: ModelConfig, names: Sequence[str]) -> list[str]:
    base = base_config(config)
    own = [str(name) for _, name in sorted((base.id2label or {}).items())]
    if names and set(names) <= set(own):
        return own
    has_head = any(name.endswith(HEAD) for name in base.architectures or ())
    if not has_head or all(map(GENERIC.fullmatch, own)):
        return list(names)
    raise UserError(
        f"model.path: the classification head of {config.path} has the labels {', '.join(own)}, and the rows hold "
        f"{', '.join(names)}; rename the labels in the data, or choose a base model without a head"
    )


def _numbered_order(config: ModelConfig, names: Sequence[str]) -> list[str] | None:
    """One name for each output if the labels are numbers of outputs, some of which have no row; else None."""
    if not names or not all(map(WHOLE_NUMBER.fullmatch, names)):
        return None
    base = base_config(config)
    has_head = any(name.endswith(HEAD) for name in base.architectures or ())
    outputs = config.num_labels or (len(base.id2label or {}) if has_head else 0)
    numbers = {int(name) for name in names}
    if max(numbers) >= outputs or numbers == set(range(len(names))):
        return None
    return [str(number) if number in numbers else f"LABEL_{number}" for number in range(outputs)]


def base_config(config: ModelConfig) -> transformers.PretrainedConfig:
    """The base model's configuration.

    Raises: UserError if it is neither on this machine nor in the cache.
    """
    with hub.explain_missing_model(config.path, config.revision):
        return transformers.AutoConfig.from_pretrained(
            hub.model_folder(config.path),
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
        )


def label_options(labels: Sequence[str] | None, config: ModelConfig) -> dict[str, object]:
    """The options of `from_pretrained` that give the head its classes; none for a language model."""
    if labels is None:
        return {}
    named = {"id2label": dict(enumerate(labels)), "label2id": {name: n for n, name in enumerate(labels)}}
    return named if config.problem_type is None else {**named, "problem_type": config.problem_type}


def write_labels(folder: Path, labels: Sequence[str] | None) -> None:
    """Write the label names beside the adapter; nothing for a language model."""
    if labels is not None:
        text = json.dumps(list(labels), ensure_ascii=False, indent=1)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read_labels(folder: Path) -> list[str] | None:
    """The label names beside an adapter; None without any (a language model, or an adapter of an older hpotune)."""
    file = folder / FILE
    return [str(name) for name in json.loads(file.read_text(encoding="utf-8"))] if file.is_file() else None


def with_class_order(split: DataSplit, order: Sequence[str]) -> DataSplit:
    """The rows with class numbers by `order`, which holds every name of the split."""
    if list(order[: len(split.labels)]) == split.labels:
        return split
    numbers = [order.index(name) for name in split.labels]

    def renumber(label: Value) -> Value:
        if isinstance(label, list):
            return [renumber(one) for one in label]
        return numbers[int(cast(int, label))]

    def renumbered(rows: Sequence[DataRow]) -> list[DataRow]:
        return [
            replace(row, values=row.values | {LABEL: renumber(row.values[LABEL])})
            if row.values[LABEL] is not None  # without a label: left out when it is tokenized
            else row
            for row in rows
        ]

    return replace(
        split, train=renumbered(split.train), validation=renumbered(split.validation), labels=list(order)
    )

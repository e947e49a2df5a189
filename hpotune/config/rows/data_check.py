"""What the static check finds in a study's data: columns that prompts need, and files that cannot be read.

Data that is not on this machine is not checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hpotune.config.rows.local_samples import local_sample
from hpotune.config.rows.prompt_columns import CONVERSATIONS, column_mistakes, prompt_columns
from hpotune.config.rows.row_template import placeholders
from hpotune.config.rows.text_encoding import DataFileError
from hpotune.config.schema.data_config import MixtureSource
from hpotune.config.schema.study_config import PROMPTS, DataConfig, PointConfig
from hpotune.config.yaml_source import Mistake
from hpotune.errors import nearest

READ_COLUMNS = frozenset({"instruction", "input", "output", *CONVERSATIONS, "tools", "label"})
"""The columns of the prompts that hpotune knows."""


def data_mistakes(point: PointConfig, *, data_root: str | None) -> Iterator[Mistake]:
    """Columns that the prompt needs and a local data file does not have, and renamed columns that nothing reads."""
    for name, data in point.data.sources.items() if point.data is not None else ():
        for key, text in _source_mistakes(data, point, data_root=data_root):
            if not name:
                yield key, text
            elif key[1] in MixtureSource.model_fields:
                yield ("data", "mixture", name, *key[1:]), text.replace("data.", f"data.mixture.{name}.", 1)
            else:
                yield ("data", "mixture", name), f"data.mixture.{name}: {text}"


def _source_mistakes(data: DataConfig, point: PointConfig, *, data_root: str | None) -> Iterator[Mistake]:
    labelled = point.model is not None and point.model.task == "sequence_classification"
    yield from _unread_columns(data, labelled=labelled)
    if Path(data.path).is_file() and data.split.partition("[")[0] != "train":
        yield (
            ("data", "split"),
            f"data.split={data.split!r}: a single file has one split, train; give a folder for other splits",
        )
    try:
        found = local_sample(data, data_root)
    except DataFileError as error:
        yield ("data", "path"), f"data.path: {error}"
        return
    if found is not None:
        rows, where = found
        yield from column_mistakes(data, rows, labelled=labelled, where=where)


def _unread_columns(data: DataConfig, *, labelled: bool) -> Iterator[Mistake]:
    """New names of data.columns that no prompt reads, which are most likely misspelt."""
    read = {column.name for column in prompt_columns(data, labelled=labelled)} | READ_COLUMNS
    read |= {name.partition(".")[0] for name in placeholders(data.prompt + (data.response or ""))}
    if data.prompt not in PROMPTS:
        read |= set(data.columns.values())
    for name in data.columns.keys() - read:
        rule = f"is not a column that {data.prompt!r} reads; {nearest(name, read)}"
        yield ("data", "columns", name), f"data.columns.{name} {rule}"

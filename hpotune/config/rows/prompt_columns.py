"""The columns that a prompt reads, and the mistakes in them: one function for the static check and for a trial.

A row has its columns under their own names and under those of `data.columns`. Missing (null) and empty values are
counted: what a missing answer and a missing part of a prompt mean is in finetune/data/prompt.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hpotune.config.rows.row_template import NoSuchField, field_names, field_value, has_field, placeholders
from hpotune.config.schema.study_config import PROMPTS, DataConfig
from hpotune.config.yaml_source import Mistake, Value
from hpotune.errors import nearest

LABEL = "label"
CONVERSATIONS = ("messages", "conversations")
"""The column of a conversation: the first of these that the data has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptColumn:
    """A column, or a field of one, that the rows of a study need."""

    name: str
    """As in the template, after `data.columns`."""
    key: str
    """The key of the section `data` that names it."""
    is_trained: bool
    """Whether the loss counts its text, or it is the label."""


def prompt_columns(data: DataConfig, *, labelled: bool) -> list[PromptColumn]:
    """The columns that every row needs; those of `chat`, which has a choice, are left out.

    `labelled`: for a classifier, whose prompt has no answer and whose rows have a label.
    """
    built_in = {"alpaca": ["instruction"], "text": ["text"], "chat": []}
    prompt = built_in.get(data.prompt) if data.prompt in PROMPTS else placeholders(data.prompt)
    answers = ["output"] if data.prompt == "alpaca" else placeholders(data.response or "")
    whole = not answers and not labelled  # without an answer all text counts
    found = [PromptColumn(name=name, key="prompt", is_trained=whole) for name in prompt or ()]
    if labelled:
        return [*found, PromptColumn(name=LABEL, key="columns", is_trained=True)]
    key = "prompt" if data.prompt in PROMPTS else "response"
    found += [PromptColumn(name=name, key=key, is_trained=True) for name in answers]
    return list({(column.name, column.is_trained): column for column in found}.values())


def renamed_row(row: Mapping[str, Value], columns: Mapping[str, str]) -> dict[str, Value]:
    """The row with `data.columns` applied: expected name -> name, or field, in the data; None where a row lacks it."""
    return {**row, **{ours: _value_or_none(row, theirs) for ours, theirs in columns.items()}}


def column_mistakes(
    data: DataConfig, rows: Sequence[Mapping[str, Value]], *, labelled: bool, where: str
) -> Iterator[Mistake]:
    """Columns that the study file names and no row has.

    `rows`: as they are stored; with every column of the data, if not every field of its objects. `where`: what is
    said of the data, `the data` or a file.
    """
    for ours, theirs in data.columns.items():
        if not any(has_field(row, theirs) for row in rows):
            rule = f"column {theirs!r} is not in {where}; {nearest(theirs, field_names(rows))}"
            yield ("data", "columns", ours), f"data.columns.{ours}: {rule}"
    renamed = [_renamed_sample(row, data.columns) for row in rows]
    if data.prompt == "chat":
        yield from _chat_mistakes(renamed, where=where)
    for column in prompt_columns(data, labelled=labelled):
        if column.name in data.columns or any(has_field(row, column.name) for row in renamed):
            continue
        known = field_names(renamed)
        rule = f"column {column.name!r} is not in {where}; {nearest(column.name, known)}"
        stripped = column.name.strip()
        step = (
            f"write {{{stripped}}}" if stripped in known else "name others with data.columns: {ours: theirs}"
        )
        yield ("data", column.key, column.name), f"data.{column.key}: {rule}; {step}"


def missing_and_empty(
    data: DataConfig, rows: Iterable[Mapping[str, Value]], *, labelled: bool
) -> Iterator[str]:
    """A sentence for each column that is missing (null) or empty text in some rows, renamed as prompts read them."""
    counts = ColumnCounts(data, labelled=labelled)
    for row in rows:
        counts.add(row)
    return counts.sentences()


class ColumnCounts:
    """In how many rows each column that a prompt reads is missing or empty text."""

    def __init__(self, data: DataConfig, *, labelled: bool) -> None:
        self._columns = prompt_columns(data, labelled=labelled)
        self._labelled = labelled
        self._rows = 0
        self._missing = [0] * len(self._columns)
        self._empty = [0] * len(self._columns)

    def add(self, row: Mapping[str, Value]) -> None:
        """Count a row, renamed as prompts read it."""
        self._rows += 1
        for number, column in enumerate(self._columns):
            value = _value_or_none(row, column.name)
            self._missing[number] += value is None
            self._empty[number] += value == ""

    def sentences(self) -> Iterator[str]:
        """One for each column and each of the two."""
        counted = zip(self._columns, self._missing, self._empty, strict=True)
        for column, missing, empty in counted:
            unlabelled = column.name == LABEL and self._labelled
            if missing:
                then = "these rows are left out" if column.is_trained else "read as empty text"
                yield f"column {column.name!r} is missing (null) in {missing} of {self._rows} rows; {then}"
            if empty:
                kept = "trained as it is" if column.is_trained else "read as it is"
                then = "these rows are left out" if unlabelled else kept
                yield f"column {column.name!r} is empty text in {empty} of {self._rows} rows; {then}"


def add_fields(known: dict[str, Value], row: Mapping[str, Value]) -> None:
    """Add the columns of a row, and the fields of its objects, to those of earlier rows, which have no values."""
    for name, value in row.items():
        if isinstance(value, dict):
            inner = known.get(name)
            fields = inner if isinstance(inner, dict) else {}
            known[name] = fields
            add_fields(fields, value)
        else:
            known.setdefault(name, None)


def _chat_mistakes(rows: Sequence[Mapping[str, Value]], *, where: str) -> Iterator[Mistake]:
    def present(name: str) -> bool:
        return any(name in row for row in rows)

    if any(present(name) for name in CONVERSATIONS) or (present("instruction") and present("output")):
        return
    rule = f"needs the column messages, or instruction and output; {where} has {', '.join(sorted(field_names(rows)))}"
    yield ("data", "prompt"), f"data.prompt: chat {rule}; name yours with data.columns: {{messages: NAME}}"


def _renamed_sample(row: Mapping[str, Value], columns: Mapping[str, str]) -> dict[str, Value]:
    found = {ours: _value_or_none(row, theirs) for ours, theirs in columns.items() if has_field(row, theirs)}
    return {**row, **found}


def _value_or_none(row: Mapping[str, Value], name: str) -> Value:
    try:
        return field_value(row, name)
    except NoSuchField:
        return None

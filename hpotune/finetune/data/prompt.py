"""A row of a dataset as pieces of text; encoding.py makes token ids of them.

Source: the alpaca texts are those of tatsu-lab/stanford_alpaca, with the line break before the answer as in the column
`text` of tatsu-lab/alpaca.
"""

from __future__ import annotations

from collections.abc import Mapping

from hpotune.config.schema.study_config import HOLE, DataConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.trial_errors import DataError, UserError

Piece = tuple[str, bool]
"""A text, and whether the loss counts it."""

ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


def text_pieces(row: Mapping[str, Value], config: DataConfig) -> list[Piece]:
    """The text of a row for a language model, for every prompt but chat (chat_template.py).

    Raises: DataError for a missing column.
    """
    if config.prompt == "alpaca":
        return [(_alpaca_prompt(row), False), (column_text(row, "output"), True)]
    if config.prompt == "text":
        return [(column_text(row, "text"), True)]
    prompt = fill_template(config.prompt, row)
    return (
        [(prompt, True)]
        if config.response is None
        else [(prompt, False), (fill_template(config.response, row), True)]
    )


def classifier_text(row: Mapping[str, Value], config: DataConfig) -> str:
    """The text of a row for a classifier: the prompt without an answer.

    Raises: DataError for a missing column, UserError for `chat`.
    """
    if config.prompt == "chat":
        raise UserError(
            "data.prompt: chat needs task: causal_lm; for sequence_classification set text or a template"
        )
    if config.prompt == "alpaca":
        return _alpaca_prompt(row)
    return column_text(row, "text") if config.prompt == "text" else fill_template(config.prompt, row)


def fill_template(template: str, row: Mapping[str, Value]) -> str:
    """The template with its {columns} replaced by the row's values.

    Raises: DataError for a missing column.
    """
    return HOLE.sub(lambda match: column_text(row, match[1]), template)


def _alpaca_prompt(row: Mapping[str, Value]) -> str:
    return fill_template(ALPACA_INPUT if row.get("input") else ALPACA, row)


def column_text(row: Mapping[str, Value], column: str) -> str:
    if column not in row:
        raise DataError(
            f"no column {column!r}; the data has {', '.join(sorted(row))}; name yours under data.columns"
        )
    return "" if row[column] is None else str(row[column])

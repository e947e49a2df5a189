"""A row of a dataset as pieces of text; encoding.py makes token ids of them.

Source: the alpaca texts are those of tatsu-lab/stanford_alpaca, with the line break before the answer as in the column
`text` of tatsu-lab/alpaca.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hpotune.config.rows.prompt_columns import LABEL
from hpotune.config.rows.row_template import (
    NoSuchField,
    NotText,
    field_value,
    has_field,
    template_parts,
    value_text,
)
from hpotune.config.schema.study_config import DataConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.trial_errors import DataError, RowLeftOut, UserError

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

    Raises: DataError for a missing column, RowLeftOut for a row without the text that is trained.
    """
    if config.prompt == "alpaca":
        return [(_alpaca_prompt(row), False), (answer_text(row, "output"), True)]
    if config.prompt == "text":
        return [(answer_text(row, "text"), True)]
    if config.response is None:
        return [(_filled(config.prompt, row, answer_text), True)]
    return [(fill_template(config.prompt, row), False), (_filled(config.response, row, answer_text), True)]


def classifier_text(row: Mapping[str, Value], config: DataConfig) -> str:
    """The text of a row for a classifier: the prompt without an answer.

    Raises: DataError for a missing column, RowLeftOut for a row without a label, UserError for `chat`.
    """
    if config.prompt == "chat":
        raise UserError(
            "data.prompt: chat needs task: causal_lm; for sequence_classification set text or a template"
        )
    if row.get(LABEL, 0) is None:
        raise RowLeftOut(f"column {LABEL!r} is missing (null) or empty")
    if config.prompt == "alpaca":
        return _alpaca_prompt(row)
    return column_text(row, "text") if config.prompt == "text" else fill_template(config.prompt, row)


def fill_template(template: str, row: Mapping[str, Value]) -> str:
    """The template with its {columns} replaced by the row's values.

    Raises: DataError for a missing column, RowLeftOut for a value that has no text.
    """
    return _filled(template, row, column_text)


def column_text(row: Mapping[str, Value], name: str) -> str:
    """The value of a column or field as text; empty if it is missing (null).

    Raises: as `fill_template`.
    """
    if not has_field(row, name) and name.partition(".")[0] not in row:
        raise DataError(
            f"no column {name!r}; the data has {', '.join(sorted(row))}; name yours under data.columns"
        )
    try:
        return value_text(field_value(row, name))
    except NoSuchField as error:
        raise RowLeftOut(str(error)) from error
    except NotText as error:
        raise RowLeftOut(f"column {name!r} {error}") from error


def answer_text(row: Mapping[str, Value], name: str) -> str:
    """The value of a column that is trained, as text.

    Raises: as `fill_template`; RowLeftOut for a missing value (null), of which nothing can be learned.
    """
    text = column_text(row, name)
    if not text and field_value(row, name) is None:
        raise RowLeftOut(f"column {name!r} is missing (null)")
    return text


def _filled(template: str, row: Mapping[str, Value], text: Callable[[Mapping[str, Value], str], str]) -> str:
    return "".join(text(row, part.text) if part.is_column else part.text for part in template_parts(template))


def _alpaca_prompt(row: Mapping[str, Value]) -> str:
    has_input = "input" in row and column_text(row, "input")
    return fill_template(ALPACA_INPUT if has_input else ALPACA, row)

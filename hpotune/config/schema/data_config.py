"""The section `data` of a study file: the rows, and what is trained of them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from hpotune.config.rows.row_template import placeholders, template_mistake
from hpotune.config.schema import Section
from hpotune.errors import nearest

SPLIT = r"[\w.]+(\[-?\d*%?:-?\d*%?\])?"
PROMPTS = ("alpaca", "chat", "text")


class DataConfig(Section):
    """The training data."""

    path: str
    """Hugging Face id, folder (`save_to_disk` too), a local .json .jsonl .csv .tsv .parquet file, or s3://BUCKET/KEY,
    which `hpotune fetch` downloads. A folder of that name under `data_root` has precedence. Text is trained as it is
    written, other values as JSON."""
    name: str | None = None
    """The dataset's configuration (`main`, `ARC-Easy`); null: its only one."""
    split: str = "train"
    """The training split; Hugging Face slices are allowed (`train[:1000]`: rows after shuffling, not the first
    1000)."""
    revision: str | None = None
    """Branch, tag or full commit of a Hugging Face dataset; null: main."""
    prompt: str = "alpaca"
    """alpaca (instruction, input, output), chat (the tokenizer's template over the conversation in `messages` or
    `conversations`, with role and content or from and value, or over the alpaca columns), text (the column `text`),
    or a template with {columns}, also {Name with blanks} and {column.field}. JSON's braces need no escape; {'{'}
    and {'}'} are one literal brace. The loss covers the answers only, except for text and for templates without
    `response`, where it covers all tokens."""
    response: str | None = None
    """With a template: the template of the answer, which alone enters the loss; null: all tokens enter the loss."""
    columns: dict[str, str] = {}
    """Renamed columns, expected name: name in the data (`{output: response, input: answer.text}`)."""
    max_length: int = Field(default=512, ge=8)
    """Tokens per row; longer rows are truncated at the end."""
    rows: int | None = Field(default=None, ge=1)
    """Number of rows used, drawn at random with `seed`; null: all."""
    validation: Annotated[float | int, Field(ge=0, allow_inf_nan=False)] = 0.05
    """Rows held out of training, from which eval_loss is computed: a share below 1, or a number of rows; 0: none."""
    max_left_out: float = Field(default=0.1, ge=0, le=1)
    """Largest share of the rows that may be left out because they cannot be used (an odd conversation, a text without
    a token); above it the study stops. Rows whose answer `max_length` cuts off do not count: that is a setting, not a
    fault of the data. 0: every row must be usable."""
    seed: int = 0
    """Random seed for the choice of rows and of the validation rows; the same for all trials."""

    @field_validator("prompt")
    @classmethod
    def _known_prompt(cls, value: str) -> str:
        if value in PROMPTS:
            return value
        mistake = template_mistake(value)
        if mistake is not None:
            raise ValueError(mistake)
        if not placeholders(value):
            raise ValueError(
                f"is not a known prompt; {nearest(value, PROMPTS)}, or a template with {{columns}}"
            )
        return value

    @field_validator("response")
    @classmethod
    def _answer_of_the_row(cls, value: str | None) -> str | None:
        if value is None:
            return None
        mistake = template_mistake(value)
        if mistake is not None:
            raise ValueError(mistake)
        if not placeholders(value):
            raise ValueError(
                "has no {column}, so that every row would have the same answer; write {NAME} for a column"
            )
        return value

    @field_validator("split")
    @classmethod
    def _whole_split(cls, value: str) -> str:
        if not re.fullmatch(rf"{SPLIT}( *\+ *{SPLIT})*", value):
            raise ValueError("needs a split, such as train, train[:1000] or train[10%:20%]")
        return value

    @model_validator(mode="after")
    def _rows_left(self) -> DataConfig:
        if self.validation >= 1 and self.validation != int(self.validation):
            raise ValueError(f"validation: {self.validation} needs a share below 1 or a whole number of rows")
        if self.rows is not None and self.validation >= self.rows:
            raise ValueError(
                f"validation: {self.validation} of {self.rows} rows leaves none for training; lower it or use more rows"
            )
        if self.response is not None and self.prompt in PROMPTS:
            raise ValueError(
                f"response: needs a template as prompt, and prompt: {self.prompt} is none; remove response"
            )
        return self

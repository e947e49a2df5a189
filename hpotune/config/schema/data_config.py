"""The section `data` of a study file: the rows, and what is trained of them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, ValidationError, field_validator, model_validator

from hpotune.config.rows.row_template import placeholders, template_mistake
from hpotune.config.schema import Section
from hpotune.errors import nearest

SPLIT = r"[\w.]+(\[-?\d*%?:-?\d*%?\])?"
PROMPTS = ("alpaca", "chat", "text")


def _first_rule(error: ValidationError) -> str:
    """The first broken rule of a section, with its key."""
    first = error.errors()[0]
    where = "".join(f"{part}: " for part in first["loc"])
    return where + first["msg"].removeprefix("Value error, ")


class MixtureSource(Section):
    """A source of `data.mixture`. What is null here is as under `data`."""

    path: str
    """As data.path."""
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Its share of the training rows is its weight by the sum of all weights. Usually a range. 0: it is not trained."""
    name: str | None = None
    """As data.name."""
    split: str = "train"
    """As data.split."""
    revision: str | None = None
    """As data.revision."""
    prompt: str | None = None
    """As data.prompt, for the rows of this source."""
    response: str | None = None
    """As data.response; not taken from `data` where `prompt` is given here."""
    columns: dict[str, str] | None = None
    """As data.columns."""
    rows: int | None = Field(default=None, ge=1)
    """Rows of this source that are used, drawn at random, before its validation rows are held out; null: all."""
    validation: Annotated[float | int, Field(ge=0, allow_inf_nan=False)] | None = None
    """As data.validation, of this source."""


class DataConfig(Section):
    """The training data."""

    path: str = ""
    """Hugging Face id, folder (`save_to_disk` too), a local .json .jsonl .csv .tsv .parquet file, or s3://BUCKET/KEY,
    which `hpotune fetch` downloads. A folder of that name under `data_root` has precedence. Text is trained as it is
    written, other values as JSON."""
    mixture: dict[str, MixtureSource] = {}
    """Instead of `path`: several sources by a name of yours, each with a weight (`{web: {path: a.jsonl, weight: {float:
    [0.1, 1]}}, code: {path: b}}`), see docs/data.md."""
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
    """Number of rows used, drawn at random with `seed`; null: all. Of a mixture: the training rows of an epoch; null:
    as many as its sources have together."""
    validation: Annotated[float | int, Field(ge=0, allow_inf_nan=False)] = 0.05
    """Rows held out of training, from which eval_loss is computed: a share below 1, or a number of rows; 0: none. Of a
    mixture: of each source, whatever its weight is."""
    max_left_out: float = Field(default=0.1, ge=0, le=1)
    """Largest share of the rows that may be left out because they cannot be used (an odd conversation, a text without
    a token); above it the study stops. Rows whose answer `max_length` cuts off do not count: that is a setting, not a
    fault of the data. 0: every row must be usable."""
    seed: int = 0
    """Random seed for the choice of rows and of the validation rows; the same for all trials."""
    streaming: bool = False
    """true: rows are read a few at a time and kept as tokens in a file of the study, so that the memory of a trial does
    not grow with their number. The batches are the same; see docs/data.md."""

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

    @property
    def sources(self) -> dict[str, DataConfig]:
        """Name of each source of the mixture -> its rows as a section of its own. Without one: this, named ""."""
        return {name: self._source(one) for name, one in self.mixture.items()} or {"": self}

    def _source(self, one: MixtureSource) -> DataConfig:
        own = one.model_dump(exclude={"weight", "response", "rows"}, exclude_none=True)
        response = one.response if one.response is not None or one.prompt is not None else self.response
        # Not model_copy: the source is checked by the rules of the section.
        shared = self.model_dump(exclude={"mixture", "path", "name", "split", "revision"})
        return DataConfig.model_validate({**shared, **own, "response": response, "rows": one.rows})

    @property
    def holds_out(self) -> bool:
        """Whether rows are held out of training."""
        return any(one.validation for one in self.sources.values())

    @property
    def unweighted(self) -> DataConfig:
        """What the rows that are read and tokenized depend on: without weights and the number of rows of an epoch."""
        if not self.mixture:
            return self
        equal = {name: one.model_copy(update={"weight": 1.0}) for name, one in self.mixture.items()}
        return self.model_copy(update={"mixture": equal, "rows": None})

    @model_validator(mode="after")
    def _one_origin(self) -> DataConfig:
        if not self.path and not self.mixture:
            raise ValueError(
                "path: is missing; give an id, a file or a folder, or mixture: with several of them"
            )
        if not self.mixture:
            return self
        for key, default in (("path", ""), ("name", None), ("revision", None), ("split", "train")):
            if getattr(self, key) != default:
                raise ValueError(f"{key}: stands beside mixture:; write it under each source")
        for name, one in self.mixture.items():
            if not re.fullmatch(r"[A-Za-z_][\w-]*", name):
                raise ValueError(f"mixture: {name!r} is no name of a source; needs letters, digits, _ and -")
            try:
                self._source(one)
            except ValidationError as error:
                raise ValueError(f"mixture: {name}: {_first_rule(error)}") from None
        if not any(one.weight for one in self.mixture.values()):
            raise ValueError("mixture: all weights are 0, also at an end of their ranges; needs one above 0")
        return self

    @model_validator(mode="after")
    def _rows_left(self) -> DataConfig:
        if self.validation >= 1 and self.validation != int(self.validation):
            raise ValueError(f"validation: {self.validation} needs a share below 1 or a whole number of rows")
        if self.rows is not None and self.validation >= self.rows and not self.mixture:
            raise ValueError(
                f"validation: {self.validation} of {self.rows} rows leaves none for training; lower it or use more rows"
            )
        if self.response is not None and self.prompt in PROMPTS:
            raise ValueError(
                f"response: needs a template as prompt, and prompt: {self.prompt} is none; remove response"
            )
        return self

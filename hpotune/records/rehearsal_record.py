"""The rehearsal's spec and result, which cross the process border as JSON.

checks/rehearsal.py writes the spec and reads the result; `python -m hpotune.finetune.rehearsal` does the rest.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpotune.config.schema import Section
from hpotune.config.schema.study_config import PointConfig

Step = Literal["settings", "tokenizer", "rows", "tokens", "tasks", "model"]
"""The steps of a rehearsal, in their order."""


class RehearsalSpec(Section):
    """What is rehearsed; the process reads neither the study file nor the store."""

    study: str
    points: list[PointConfig]
    """The baseline's point, then a point for every other end of each range."""
    world_size: int = 1
    """Ranks of a trial."""
    home: str = "."
    """Absolute; the folder of the study file."""
    data_root: str | None = None
    offline: bool = False
    """Whether trials run offline; the rehearsal itself may use what the login node can reach."""
    fetched: str | None = None
    """Absolute; the lock file of `hpotune fetch`; null: there is none."""
    prepared: str | None = None
    """A folder for the tokenized rows and passed model checks, which the study's trials read; null: none are kept."""
    preview: bool = False
    """Whether the result holds the rows of the first point and the first request of each task."""


class RehearsalProgress(Section):
    """A line of the process's standard output."""

    step: Step
    done: int = 0
    total: int = 0
    """0: the step does not count."""


class PreviewRow(Section):
    """A row as it is trained."""

    row: int
    """Its position in the split, from 0."""
    text: str
    counted: str
    """The part of the text that the loss counts; the label of a classification."""
    tokens: int
    parts: list[tuple[str, bool]]
    """The text in parts, each with whether the loss counts it."""
    source: str = ""
    """The source in data.mixture; empty without a mixture."""


class RowReason(Section):
    """A row that is left out."""

    row: int
    reason: str
    source: str = ""
    """As PreviewRow.source."""


class SourceRows(Section):
    """What an epoch trains of a source of data.mixture, at the first point."""

    name: str
    path: str
    weight: float
    share: float
    """Its part of the training rows, by the weights."""
    rows: int
    """Training rows of an epoch, repeated ones included."""
    available: int
    """Training rows that can be used."""
    passes: int
    """How often a row is used in an epoch, at most."""
    validation: int
    """Rows that are held out."""


class LengthBin(Section):
    """A bar of the histogram of row lengths."""

    start: int
    """In tokens, included."""
    end: int
    """Not included."""
    rows: int


class Lengths(Section):
    """Tokens per row after truncation to data.max_length."""

    min: int
    median: float
    mean: float
    p95: float
    max: int
    histogram: list[LengthBin]


class TaskRequests(Section):
    """The requests of one lm-eval task."""

    requests: int
    first: dict[str, str] = Field(default={})
    """The first request as the model sees it; empty for a task of the sealed test."""


class RehearsalRecord(Section):
    """A study's rehearsal.json: whether its trials were rehearsed before they started."""

    state: Literal["passed", "failed", "skipped"]
    """failed: of a rehearsal job; its study starts no trial. skipped: `--no-rehearsal`."""
    mistakes: list[str] = Field(default=[])
    warnings: list[str] = Field(default=[])


class RehearsalResult(Section):
    """What the rehearsal found; rows, lengths and requests are those of the first point."""

    mistakes: list[str] = Field(default=[])
    """Errors that every trial, or those at some point of the space, would end with; each starts with its key."""
    warnings: list[str] = Field(default=[])
    missing: list[str] = Field(default=[])
    """Models and datasets that are not downloaded, with the command; what needs them was not rehearsed."""
    used: int = 0
    """Rows that are trained or evaluated."""
    sources: list[SourceRows] = Field(default=[])
    """Empty without a mixture."""
    dropped: list[RowReason] = Field(default=[])
    cut: list[int] = Field(default=[])
    """Numbers of the rows that data.max_length cuts."""
    lengths: Lengths | None = None
    longest: int = 0
    """Tokens of the longest training row of any point; 0: no rows were tokenized."""
    counted: list[int] = Field(default=[])
    """Counted tokens of the training rows that have the most, at any point; at most 64, largest first."""
    requests: dict[str, TaskRequests] = Field(default={})
    rows: list[PreviewRow] = Field(default=[])
    """Empty unless the spec asks for a preview."""
    seconds: float = 0.0
    peak_memory_gb: float = 0.0

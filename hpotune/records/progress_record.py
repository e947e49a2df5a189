"""progress.json in a trial's folder: how far the trial is. The trial's process writes it, displays read it.

It exists while the trial runs and has something to say; a program of the user's own may write it too
(docs/own_code.md). No decision depends on it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PROGRESS = "progress.json"
MAX_BYTES = 4096
"""No file of this kind is larger."""
MOST_STEPS = 10**12

Phase = Literal[
    "start", "load", "data", "check", "train", "checkpoint", "save", "evaluate", "score", "run", "end"
]
"""start: until the libraries are imported. evaluate: losses of the validation rows. score: lm-eval tasks. run: a
program of the user's own. end: its result is written."""
PHASE_TEXTS: dict[Phase, str] = {
    "start": "starting",
    "load": "loading the model",
    "data": "reading the data",
    "check": "sanity checks",
    "train": "training",
    "checkpoint": "writing a checkpoint",
    "save": "saving the weights",
    "evaluate": "evaluating",
    "score": "scoring",
    "run": "running",
    "end": "recording the result",
}
"""The phases as the trial's log and the displays name them."""


class ProgressRecord(BaseModel):
    """The content of progress.json. Steps: of training, rows of an evaluation, requests of a task."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    phase: Phase = "run"
    task: str = Field(default="", max_length=200)
    """Of `score`: the names of the tasks."""
    step: int | None = Field(default=None, ge=0, le=MOST_STEPS, strict=True)
    """Steps that are done; None: the phase has no steps."""
    steps: int | None = Field(default=None, ge=1, le=MOST_STEPS, strict=True)
    """All steps of the phase, also those before `first_step`."""
    first_step: int = Field(default=0, ge=0, le=MOST_STEPS, strict=True)
    """Steps that were done when the phase began: of a trial that continues from its checkpoint."""
    seconds: float | None = Field(default=None, ge=0)
    """Since the phase began, when this was written."""

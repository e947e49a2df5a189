"""The sections of a study file that say how it runs: budgets, modes, what is repeated, what is known beforehand."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from pydantic import Field, field_validator

from hpotune.config.schema import Json, Section
from hpotune.config.schema.walltime import WallTime

Cause = Literal[
    "oom", "nan", "truth", "data", "user", "node", "timeout", "preempted", "killed", "store", "unknown"
]
"""Why an attempt at a trial ended without a value."""


class BudgetConfig(Section):
    """When the study ends. Exact over all workers."""

    trials: int = Field(ge=1)
    """Trials that finished or were stopped at a rung, the baseline counted; a failed one is replaced."""
    parallel: int = Field(default=1, ge=1)
    """Trials at a time: workers, the %K of a job array, or the width of a round."""
    max_failed: int = Field(default=5, ge=0)
    """The study stops when more trials than this have failed; 0: at the first. Diverged ones (nan) are not counted."""
    max_equal_failures: int = Field(default=3, ge=1)
    """The study stops when so many trials in a row have failed for one reason in the same words: the next would too."""
    gpu_hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """No trial starts that would take the study beyond so many; attempts that were lost are counted. null: no limit."""
    wall_time: WallTime | None = None
    """No trial starts so long after the first one started, as Slurm writes times; null: no limit."""
    plateau: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The study ends when, twice in a row, no point of the space is expected (95 %) to beat the best trial by more than
    this, in the objective's unit; looked at from the tenth finished trial on. One objective, no `when`. null: never."""
    until: date | datetime | None = None
    """No trial starts after this moment (local time); null: no limit."""
    on_end: Literal["drain", "cancel"] = "drain"
    """Running trials, when a budget or the goal ends the study. drain: they finish. cancel: they are stopped."""

    @field_validator("until", mode="before")
    @classmethod
    def _iso(cls, value: Json) -> Json:
        if not isinstance(value, str):
            return value
        try:
            return datetime.fromisoformat(value) if len(value) > 10 else date.fromisoformat(value)
        except ValueError:
            raise ValueError("needs a date such as 2026-12-24 or 2026-12-24 18:00") from None


class ExecutionConfig(Section):
    """Who hands out trials."""

    mode: Literal["sequential", "batch", "async"] = "async"
    """async: each worker takes a trial when it is free. batch: rounds of `parallel` trials, each drawn from the results
    of the rounds before. sequential: one at a time."""
    trials_per_job: Literal["auto"] | int = "auto"
    """1: a job array with one trial an element. n: jobs that end after n. auto: workers that take trials to the end."""
    pack: Literal["auto", 1] = "auto"
    """Trials trained together on one base; auto: 1."""
    lease_s: int = Field(default=300, ge=10)
    """Seconds without a sign of life after which a worker is dead, where nobody asks Slurm about its job."""

    @field_validator("trials_per_job")
    @classmethod
    def _positive(cls, value: Literal["auto"] | int) -> Literal["auto"] | int:
        if value != "auto" and value < 1:
            raise ValueError("needs auto or a number of at least 1")
        return value


class RetryConfig(Section):
    """How often a trial goes back in line, under its number and from its checkpoint, before it has failed; by cause."""

    node: int = Field(default=2, ge=0)
    """A broken node (CUDA, NCCL, ECC, driver) or one that died. The node is left out from then on."""
    killed: int = Field(default=2, ge=0)
    """Killed by somebody, or its worker died: the kernel's out-of-memory killer looks like that too."""
    preempted: int | None = Field(default=None, ge=0)
    """Its job made room for another. null: as often as it comes, while each attempt gets further."""
    timeout: int | None = Field(default=None, ge=0)
    """Its job's time was out. null: as often as it comes, while each attempt gets further."""
    store: int = Field(default=2, ge=0)
    """The store or the disk was away."""
    oom: int = Field(default=0, ge=0)
    """Out of memory: the same point needs the same memory again."""
    nan: int = Field(default=0, ge=0)
    """Diverged."""
    truth: int = Field(default=0, ge=0)
    """A truth check failed."""
    data: int = Field(default=0, ge=0)
    """The data is not what the file says."""
    user: int = Field(default=0, ge=0)
    """Your own code, or a point that breaks a rule."""
    unknown: int = Field(default=0, ge=0)

    def times(self, cause: Cause) -> int | None:
        """How often a cause is tried again; None: without end."""
        found: int | None = getattr(self, cause)
        return found


class PlanConfig(Section):
    """What is known before any trial has finished; `hpotune plan --probe` measures it, finished trials replace it."""

    trial_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds that a trial trains and scores; also what a worker holds against the rest of its job's time."""
    load_s: float = Field(default=0, ge=0, allow_inf_nan=False)
    """Seconds in which a trial's process imports its libraries, and loads model and data."""
    start_s: float = Field(default=0, ge=0, allow_inf_nan=False)
    """Seconds from the start of a job to its first trial: node preparation, setup lines, import."""
    queue_s: float = Field(default=0, ge=0, allow_inf_nan=False)
    """Seconds a job waits in the queue."""

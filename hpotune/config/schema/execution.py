"""The sections `budget`, `execution`, `retry` and `plan` of a study file: how the study runs and when it ends."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from pydantic import Field, field_validator

from hpotune.config.schema import Section
from hpotune.config.schema.walltime import WallTime

Cause = Literal[
    "oom",
    "nan",
    "truth",
    "data",
    "user",
    "library",
    "node",
    "timeout",
    "preempted",
    "killed",
    "store",
    "unknown",
]
"""Why an attempt at a trial ended without a value. "truth" is a failed sanity check (section `checks`)."""


MOST_TRIALS = 1_000_000
MOST_WORKERS = 10_000
WEEK_S = 604_800


class BudgetConfig(Section):
    """When the study ends. The limits hold over all workers together; `gpu_hours`, `wall_time` and `until` also over
    search and repeats (`search.repeats`): the search ends early enough for them."""

    trials: int = Field(ge=1, le=MOST_TRIALS)
    """Number of finished or pruned trials, baseline included; a failed trial is replaced by another."""
    parallel: int = Field(default=1, ge=1, le=MOST_WORKERS)
    """Trials that run at the same time: the number of workers, the %K of a job array, or the size of a batch."""
    max_failed: int = Field(default=5, ge=0)
    """The study stops when more trials than this have failed; 0: at the first failure. Diverged trials (nan) are not
    counted."""
    max_equal_failures: int = Field(default=3, ge=1)
    """The study stops when this many consecutive trials have failed with the same cause and the same message."""
    gpu_hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """No trial starts that would make the study use more GPU-hours than this; lost attempts are counted. null: no
    limit."""
    wall_time: WallTime | None = None
    """No trial starts later than this after the first one started, in Slurm's time format; null: no limit."""
    plateau: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The study ends when two consecutive 95 % upper bounds on the possible improvement over the best trial are below
    this, in the objective's unit; computed from the tenth finished trial on. One objective, no `when`. null: never."""
    until: date | datetime | None = None
    """No trial starts after this date and time (local time); null: no limit."""
    on_end: Literal["drain", "cancel"] = "drain"
    """What happens to running trials when a budget or the goal ends the study. drain: they finish. cancel: they are
    stopped."""

    @field_validator("until", mode="before")
    @classmethod
    def _iso(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return datetime.fromisoformat(value) if len(value) > 10 else date.fromisoformat(value)
        except ValueError:
            raise ValueError("needs a date such as 2026-12-24 or 2026-12-24 18:00") from None


class ExecutionConfig(Section):
    """How trials are assigned to workers and jobs."""

    place: Literal["slurm", "hyperqueue"] = "slurm"
    """Where `submit` runs the workers. slurm: in jobs of Slurm. hyperqueue: as tasks of the HyperQueue server that `hq`
    reaches from here, one task a worker; needs `trials_per_job: auto` and one node a trial."""
    mode: Literal["sequential", "batch", "async"] = "async"
    """async: each worker takes its next trial when it is free. batch: rounds of `parallel` trials, proposed from the
    results of the earlier rounds. sequential: one trial at a time."""
    trials_per_job: Literal["auto"] | int = "auto"
    """1: a job array with one trial per element. n: each job ends after n trials. auto: each job takes trials until the
    study or its wall time ends."""
    warm: bool = True
    """Whether a worker keeps what trials start from, where jobs run more than one and in no container: of fine-tuning
    the processes of a trial, with the base model in memory; of a function an interpreter, a fork of which runs each
    call. false: each trial starts anew."""
    lease_s: int = Field(default=300, ge=10, le=WEEK_S)
    """Seconds without a heartbeat after which a worker is stale and its trial is lost; used where Slurm cannot be asked
    about the worker's job."""

    @field_validator("trials_per_job")
    @classmethod
    def _positive(cls, value: Literal["auto"] | int) -> Literal["auto"] | int:
        if value != "auto" and value < 1:
            raise ValueError("needs auto or a number of at least 1")
        return value


class RetryConfig(Section):
    """How often a trial is retried before it has failed, by cause; it keeps its number and continues from its
    checkpoint."""

    node: int = Field(default=2, ge=0)
    """A node that failed (CUDA, NCCL, ECC or driver error, or the node went down). The node is excluded afterwards."""
    killed: int = Field(default=2, ge=0)
    """The trial's process or its worker was killed, possibly by the kernel's out-of-memory killer."""
    preempted: int | None = Field(default=None, ge=0)
    """The job was preempted. null: no limit while each attempt makes progress."""
    timeout: int | None = Field(default=None, ge=0)
    """The job reached its time limit. null: no limit while each attempt makes progress."""
    store: int = Field(default=2, ge=0)
    """The store or the file system was unavailable."""
    oom: int = Field(default=0, ge=0)
    """Out of memory; a retry of the same point needs the same memory."""
    nan: int = Field(default=0, ge=0)
    """The trial diverged."""
    truth: int = Field(default=0, ge=0)
    """A sanity check failed (section `checks`)."""
    data: int = Field(default=0, ge=0)
    """The data does not have the columns, rows or labels that the study file names."""
    user: int = Field(default=0, ge=0)
    """An error in your function, command or other code of yours, or a point with an invalid value."""
    library: int = Field(default=0, ge=0)
    """An error inside an installed library (transformers, peft, lm-eval), or a package that is missing."""
    unknown: int = Field(default=0, ge=0)
    """No known cause matches; perhaps an error in hpotune."""

    def times(self, cause: Cause) -> int | None:
        """How often a trial is retried after a cause; None: without limit."""
        found: int | None = getattr(self, cause)
        return found


class PlanConfig(Section):
    """Times that `hpotune plan` assumes before any trial has finished; `--probe` measures them, finished trials replace
    them."""

    trial_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds of a trial's training and scoring; a worker also compares it with its job's remaining time. null: not
    known."""
    load_s: float = Field(default=0, ge=0, allow_inf_nan=False)
    """Seconds that a trial's process takes to import libraries and to load model and data."""
    start_s: float = Field(default=0, ge=0, allow_inf_nan=False)
    """Seconds from the start of a job to its first trial: node preparation, setup lines, imports."""
    queue_s: float = Field(default=0, ge=0, allow_inf_nan=False)
    """Seconds that a job waits in the queue."""

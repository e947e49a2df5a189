"""What crosses the process border: a trial's spec on its way in, its result on its way out. Always JSON.

Files, all written by one writer (rank 0 of the trial): trials/<n>/{spec.json,result.json,curve.jsonl,spans.jsonl,
log.txt,items.npz,adapter/,checkpoint/}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hpotune.study.config import ChecksConfig, Json, PointConfig, Section

Cause = Literal[
    "oom", "nan", "truth", "data", "user", "node", "timeout", "preempted", "killed", "store", "unknown"
]


class TrialSpec(Section):
    """One trial, complete: whoever holds this needs neither the study file nor the store."""

    study: str
    number: int
    kind: Literal["baseline", "trial"]
    seed: int
    """Of training (initial adapter, data order, dropout); the same for all trials, so that they are paired."""
    folder: str
    """Absolute; the trial's own."""
    point: PointConfig
    checks: ChecksConfig = ChecksConfig()
    data_root: str | None = None
    offline: bool = True
    python: str | None = None
    command: str | None = None
    home: str = "."
    """Absolute; the folder of the study file, where functions and commands run."""


class Failure(Section):
    """Why a trial ended without a value."""

    cause: Cause
    message: str
    """One line for the table."""


class TrialResult(Section):
    """What a trial came to. `values` follow `score.objective`; NaN never stands in them."""

    number: int
    state: Literal["finished", "failed", "paused"]
    values: list[float] = []
    stderrs: list[float | None] = []
    """Standard error of each value; null where there is none."""
    metrics: dict[str, Json] = {}
    """Everything measured: train_loss, eval_loss, `hellaswag/acc_norm`, samples_per_second, peak_memory_gb …"""
    checks: dict[str, Json] = {}
    """Truth checks that were made: name -> {ok, …what was compared}."""
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRow:
    """A trial as the store knows it: what plan and report read."""

    number: int
    kind: Literal["baseline", "trial"]
    state: Literal["waiting", "running", "finished", "failed"]
    params: Mapping[str, Json]
    """Drawn values by dotted name; empty for the baseline."""
    values: tuple[float, ...] = ()
    stderrs: tuple[float | None, ...] = ()
    metrics: Mapping[str, Json] = field(default_factory=dict)
    failure: Failure | None = None
    worker: Worker | None = None
    start: float | None = None
    """Unix seconds."""
    end: float | None = None

    @property
    def gpu_hours(self) -> float:
        """GPU-hours this trial has used, 0 where it has not said."""
        used = self.metrics.get("gpu_hours", 0.0)
        return float(used) if isinstance(used, (int, float)) else 0.0


LOCAL = "local"
"""The `job` of workers outside Slurm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """Who evaluates a trial, so that its death can be seen."""

    job: str
    """Slurm's JOB, or ARRAY_ELEMENT; `local` outside Slurm."""
    host: str
    pid: int
    task: str = ""
    """Slurm's STEP.RANK, so that several workers in one job are told apart."""

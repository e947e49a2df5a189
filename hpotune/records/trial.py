"""What crosses the process border: a trial's spec on its way in, its result on its way out. Always JSON.

Files, all written by one writer (rank 0 of the trial): trials/<n>/{spec.json,result.json,curve.jsonl,spans.jsonl,
log.txt,items.npz,adapter/,checkpoint/}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from hpotune.config.schema.execution import Cause as Cause
from hpotune.config.schema.rungs import Rung
from hpotune.config.schema.study_config import ChecksConfig, Json, PointConfig, Section
from hpotune.records.lineage import Lineage


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
    code: str | None = None
    """The snapshot of the study's code that it runs (code/<hash>/); null: it has no program of its own."""
    rung: Rung | None = None
    """How far this turn goes; null: to the end of the run."""
    parent: str | None = None
    """Absolute; the folder of the trial whose checkpoint it goes on from where it has none of its own."""


class Failure(Section):
    """Why a trial ended without a value."""

    cause: Cause
    message: str
    """One line for the table."""
    cancelled: bool = Field(default=False, exclude=True)
    """Whether somebody cancelled the job. Not stored: such a trial waits again."""


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
    rung: int | None = None
    """Whose values these are; null: of the whole run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RungScore:
    """A rung that a trial has reached."""

    rung: int
    budget: float
    """Where it lies, in the unit of `search.rungs`."""
    values: tuple[float, ...]
    stderrs: tuple[float | None, ...] = ()
    breaks: bool = False
    """Whether it broke a limit of `score.constraints` there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegretBound:
    """What more trials would bring, as seen when a trial was drawn; in the unit of the objective, never negative."""

    regret: float
    """With a probability of 95 % no point of the space is better than the best finished one by more."""
    gain: float
    """How much the next `ahead` trials are expected to raise the best, chosen as well as the model can."""
    ahead: int
    trials: int
    """Finished trials that it is made from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRow:
    """A trial as the store knows it: what plan and report read."""

    number: int
    kind: Literal["baseline", "trial"]
    state: Literal["waiting", "running", "finished", "stopped", "failed"]
    """stopped: it was scored at a rung, and others were better."""
    params: Mapping[str, Json]
    """Drawn values by dotted name; empty for the baseline."""
    values: tuple[float, ...] = ()
    stderrs: tuple[float | None, ...] = ()
    metrics: Mapping[str, Json] = field(default_factory=dict)
    failure: Failure | None = None
    worker: Worker | None = None
    """Who runs it; of an ended trial, who did."""
    start: float | None = None
    """Unix seconds, of the attempt that runs or ran last."""
    end: float | None = None
    last_heartbeat: float | None = None
    """When its worker last said that it lives, in Unix seconds by the worker's clock."""
    attempts: tuple[Attempt, ...] = ()
    """Those that have ended, oldest first."""
    forgiven: bool = False
    """A failure that `hpotune retry` has given another chance: it says nothing against the study any more."""
    retry_of: int | None = None
    """The failed trial whose point this one repeats."""
    breaks: tuple[str, ...] = ()
    """Limits of `score.constraints` that its numbers break, in words; it is never the best."""
    rung: int | None = None
    """The highest rung that it was let onto; None: the study has none, or it has not begun."""
    rung_scores: tuple[RungScore, ...] = ()
    """The rungs it has reached, lowest first."""
    regret_bound: RegretBound | None = None
    """What was to be expected of more trials when it was drawn; None: nobody looked."""
    lineage: Lineage | None = None
    """Whom it goes on from; None: each trial of the study begins at its first step."""

    @property
    def generation(self) -> int:
        """Which part of the run it trained; 0 where runs are whole."""
        return self.lineage.generation if self.lineage is not None else 0

    @property
    def awaits_promotion(self) -> bool:
        """Whether it has reached its rung, and waits for the word that it may go on."""
        return self.state == "waiting" and bool(self.rung_scores) and self.rung_scores[-1].rung == self.rung

    @property
    def paused(self) -> bool:
        """Whether it was begun and waits for a worker to go on."""
        return self.state == "waiting" and bool(self.attempts) and not self.awaits_promotion

    @property
    def decided(self) -> bool:
        """Whether it counts for the budget: it finished, or was stopped at a rung."""
        return self.state in ("finished", "stopped")

    @property
    def tries(self) -> int:
        """Attempts at it that ended; those that reached a rung are no further tries."""
        return sum(attempt.outcome != "rung" for attempt in self.attempts)

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all attempts that have ended, whatever they came to."""
        return sum([attempt.gpu_hours for attempt in self.attempts])

    @property
    def seconds(self) -> float:
        """What its attempts took together."""
        return sum([attempt.seconds for attempt in self.attempts])


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

    @property
    def job_key(self) -> str:
        """The job it works for; outside Slurm every process is a job of its own."""
        return self.job if self.job != LOCAL else f"{LOCAL}:{self.pid}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One stretch of a trial's life, on one worker, that has ended."""

    worker: Worker
    start: float
    """Unix seconds."""
    end: float
    outcome: Literal["finished", "rung", "failed", "paused"]
    """rung: it reached one that is not the last. paused: it went back in line."""
    cause: Cause | None = None
    """Why it gave no value; None where it did, or was asked to stop."""
    message: str = ""
    gpus: int = 0
    """Held by its job while it ran."""
    ended_by_other: bool = False
    """Whether others found its worker dead; else the worker told its end itself."""
    checkpoint: float | None = None
    """When the checkpoint that it left was written, in Unix seconds; None: it left none."""
    rung: int | None = None
    """Which it was to reach; None: the study has none."""

    @property
    def succeeded(self) -> bool:
        """Whether it gave values."""
        return self.outcome in ("finished", "rung")

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start if self.end > self.start else 0.0

    @property
    def gpu_hours(self) -> float:
        """GPU-hours it held."""
        return self.gpus * self.seconds / 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """What went on in a job for some time: what gantt, cost and simulator read.

    Real ones lie in jobs/<id>/spans-*.jsonl (phases of the job) and trials/<n>/spans.jsonl (phases of the trial).
    """

    job: str
    """As Worker.place."""
    trial: int | None
    """None: of the job itself."""
    phase: str
    """Of a job: queue, start (until its first claim), idle. Of a trial: load, data, check, train, score … or all of it,
    `trial`."""
    start: float
    """Unix seconds."""
    end: float

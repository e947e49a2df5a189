"""Trials as plain data: the spec and result that cross the process border as JSON, and the rows that the store returns.

Files, all written by one writer (rank 0 of the trial): trials/<n>/{spec.json,result.json,curve.jsonl,spans.jsonl,
log.txt,items.npz,adapter/,model/,checkpoint/}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from hpotune.config.schema.execution import Cause as Cause
from hpotune.config.schema.rungs import Rung
from hpotune.config.schema.study_config import ChecksConfig, PointConfig, Section
from hpotune.config.yaml_source import Value
from hpotune.records.lineage import Lineage


class TrialSpec(Section):
    """Everything a trial's process needs; it reads neither the study file nor the store."""

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
    fetched: str | None = None
    """Absolute; the lock file of `hpotune fetch`, whose commits it reads; null: what the caches hold."""
    stage: str | None = None
    """`env.stage` as the study file has it: where on its node the base model is copied; null: nowhere."""
    python: str | None = None
    command: str | None = None
    home: str = "."
    """Absolute; the folder of the study file, where functions and commands run."""
    code: str | None = None
    """The snapshot of the study's code that it runs (code/<hash>/); null: it has no program of its own."""
    prepared: str | None = None
    """Absolute; a folder with rows that a rehearsal has tokenized; null: the trial tokenizes them."""
    rung: Rung | None = None
    """The rung that this stage ends at; null: the end of the run."""
    parent: str | None = None
    """Absolute; the folder of the trial whose checkpoint it continues from where it has none of its own."""
    sealed: bool = False
    """Whether `score.test` is scored, and neither the objectives nor `score.record`: `hpotune test` alone asks so."""
    adapter: str | None = None
    """Absolute; the folder of a trained adapter, or of a whole model (train.method: full), that is scored as it is;
    null: the trial trains its own."""
    leader: str | None = None
    """Absolute; the file that names the trial which it races against (`score.race`); null: all items are scored."""
    expected_loss: float | None = None
    """The validation loss that the same model had before; null: not known, so that it is not compared."""


class Failure(Section):
    """Why a trial, or an attempt at it, ended without a value."""

    cause: Cause
    message: str
    """One line for the table."""
    cancelled: bool = Field(default=False, exclude=True)
    """Whether somebody cancelled the job. Not stored: such a trial waits again."""


class EndedRace(Section):
    """Why a trial's scoring ended early: on the items scored so far it was surely worse than the leader."""

    leader: int
    """The number of the trial that it was compared with: the best one that had all items then."""
    leader_value: float
    """The leader's score over all items."""
    leader_stderr: float | None = None
    """Its standard error; null: not known."""
    scored_items: int
    items: int
    """All items of the objective."""
    difference: float
    """The trial's score minus the leader's on the scored items. The value of the trial is `leader_value` plus this."""
    difference_stderr: float
    """Standard error of `difference` as an estimate of that over all items."""
    error: float
    """The probability with which the test ends a trial that is as good as the leader (`score.race`)."""


class TrialResult(Section):
    """The result of a trial. `values` in the order of `score.objective`, never NaN."""

    number: int
    state: Literal["finished", "failed", "paused"]
    values: list[float] = []
    stderrs: list[float | None] = []
    """Standard error of each value; null where there is none."""
    metrics: Mapping[str, object] = {}
    """Everything measured: train_loss, eval_loss, `hellaswag/acc_norm`, samples_per_second, peak_memory_gb …"""
    checks: Mapping[str, object] = {}
    """Sanity checks: name -> {ok, …what was compared}."""
    failure: Failure | None = None
    rung: int | None = None
    """The rung that the values belong to; null: the whole run."""
    race: EndedRace | None = None
    """Why its scoring ended early; the values are estimates then. null: all items were scored."""
    left_out: Mapping[str, str] = {}
    """Keys that a function or command returned and whose values are no numbers -> what they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RungScore:
    """The score of a trial at a rung."""

    rung: int
    budget: float
    """Training budget of the rung, in the unit of `search.rungs`."""
    values: tuple[float, ...]
    stderrs: tuple[float | None, ...] = ()
    breaks: bool = False
    """Whether it violates `score.constraints` there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegretBound:
    """What further trials can gain, estimated when a trial was drawn; in the unit of the objective, never negative."""

    regret: float
    """With a probability of 95 % no point of the space is better than the best finished trial by more than this."""
    gain: float
    """Expected improvement of the best by the next `ahead` trials."""
    ahead: int
    trials: int
    """Finished trials that the estimate is made from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRow:
    """A trial as the store holds it; schedule, planning and report read these."""

    number: int
    kind: Literal["baseline", "trial"]
    state: Literal["waiting", "running", "finished", "stopped", "failed"]
    """stopped: pruned at a rung, or ended early while it was scored (`race`)."""
    params: Mapping[str, Value]
    """Parameter values by dotted name; empty for the baseline."""
    values: tuple[float, ...] = ()
    stderrs: tuple[float | None, ...] = ()
    metrics: Mapping[str, Value] = field(default_factory=dict)
    failure: Failure | None = None
    worker: Worker | None = None
    """The worker that runs it, or ran it last."""
    start: float | None = None
    """Unix seconds, of the attempt that runs or ran last."""
    end: float | None = None
    last_heartbeat: float | None = None
    """Its worker's last heartbeat, in Unix seconds by the worker's clock."""
    attempts: tuple[Attempt, ...] = ()
    """Those that have ended, oldest first."""
    forgiven: bool = False
    """Whether `hpotune retry` repeats this failed trial; then it no longer counts against the study."""
    retry_of: int | None = None
    """The failed trial whose point this one repeats."""
    breaks: tuple[str, ...] = ()
    """The limits of `score.constraints` that it violates, as text; such a trial is never the best."""
    rung: int | None = None
    """The rung that it is or was trained to; None: the study has no rungs, or it has not started."""
    rung_scores: tuple[RungScore, ...] = ()
    """Its scores at rungs, lowest first."""
    regret_bound: RegretBound | None = None
    """The regret bound that was computed when it was drawn; None: it was not."""
    race: EndedRace | None = None
    """Why its scoring ended early; its values are estimates then. None: it did not."""
    lineage: Lineage | None = None
    """Which trial it continues from (pbt); None: trials of this study start at their first step."""

    @property
    def generation(self) -> int:
        """Which part of the run it trains; 0 without generations."""
        return self.lineage.generation if self.lineage is not None else 0

    @property
    def awaits_promotion(self) -> bool:
        """Whether it was scored at its rung and waits for promotion."""
        return self.state == "waiting" and bool(self.rung_scores) and self.rung_scores[-1].rung == self.rung

    @property
    def paused(self) -> bool:
        """Whether it was interrupted and waits for a worker."""
        return self.state == "waiting" and bool(self.attempts) and not self.awaits_promotion

    @property
    def decided(self) -> bool:
        """Whether it counts for the budget: it finished or was pruned."""
        return self.state in ("finished", "stopped")

    @property
    def tries(self) -> int:
        """Ended attempts, without those that ended with a score at a rung."""
        return sum(attempt.outcome != "rung" for attempt in self.attempts)

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all ended attempts."""
        return sum([attempt.gpu_hours for attempt in self.attempts])

    @property
    def seconds(self) -> float:
        """Seconds of all ended attempts."""
        return sum([attempt.seconds for attempt in self.attempts])


LOCAL = "local"
"""The `job` of workers outside Slurm."""
ENDS_WITH_STDIN = "HPOTUNE_ENDS_WITH_STDIN"
"""Set for the workers of `hpotune run`: they end when their standard input is closed, as it is by a kill -9 of it."""


HYPERQUEUE_TASK = "HPOTUNE_TASK"
"""In a task of HyperQueue: the worker's job, JOB_TASK, with hpotune's own number of the job."""


def job_id(env: Mapping[str, str]) -> str:
    """The job of this process: hpotune's for a task of HyperQueue, else Slurm's; `local` outside both."""
    return env.get(HYPERQUEUE_TASK) or slurm_job_id(env) or LOCAL


def slurm_job_id(env: Mapping[str, str]) -> str | None:
    """The job of this process: JOB, or ARRAY_ELEMENT (the number of an array alone means all its elements); None
    outside Slurm."""
    if "SLURM_ARRAY_JOB_ID" in env and "SLURM_ARRAY_TASK_ID" in env:
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return env.get("SLURM_JOB_ID")


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """The process that evaluates a trial, so that others can see whether it still runs."""

    job: str
    """Slurm's JOB, or ARRAY_ELEMENT; `local` outside Slurm."""
    host: str
    pid: int
    task: str = ""
    """Slurm's STEP.RANK, which distinguishes several workers of one job."""

    @property
    def job_key(self) -> str:
        """The id of its job; outside Slurm each process counts as a job."""
        return self.job if self.job != LOCAL else f"{LOCAL}:{self.pid}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One ended attempt at a trial, on one worker."""

    worker: Worker
    start: float
    """Unix seconds."""
    end: float
    outcome: Literal["finished", "rung", "failed", "paused"]
    """rung: it was scored at a rung that is not the last. paused: it waits again."""
    cause: Cause | None = None
    """Why it gave no value; None where it gave one, or was stopped on request."""
    message: str = ""
    gpus: int = 0
    """GPUs of its job."""
    ended_by_other: bool = False
    """Whether another process recorded its end because the worker was stale; False: the worker did."""
    checkpoint: float | None = None
    """When its checkpoint was written, in Unix seconds; None: it left none."""
    rung: int | None = None
    """The rung that it was trained to; None: the study has no rungs."""

    @property
    def succeeded(self) -> bool:
        """Whether it gave values."""
        return self.outcome in ("finished", "rung")

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.end - self.start if self.end > self.start else 0.0

    @property
    def gpu_hours(self) -> float:
        """GPU-hours it held."""
        return self.gpus * self.seconds / 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A phase of a job or trial with its start and end; the gantt chart and the simulator use these.

    Measured ones are in jobs/<id>/spans-*.jsonl (phases of the job) and trials/<n>/spans.jsonl (phases of the trial).
    """

    job: str
    """As Worker.job_key."""
    trial: int | None
    """None: a phase of the job itself."""
    phase: str
    """Of a job: queue, start (until its first claim), idle. Of a trial: load, data, check, train, score … or all of it,
    `trial`."""
    start: float
    """Unix seconds."""
    end: float

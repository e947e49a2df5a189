"""What a study would submit, take and cost: what `plan` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hpotune.config.memory.memory_estimate import GIB
from hpotune.config.memory.point_memory import ChosenMemory
from hpotune.config.schema.race_config import race_note
from hpotune.config.schema.warm_trials import process_note
from hpotune.config.yaml_source import Value
from hpotune.planning.memory_plan import MemoryPlan
from hpotune.planning.mode_comparison import ModeResult
from hpotune.planning.simulator import SimulationResult
from hpotune.planning.study_plan import StudyPlan, notes

TrialsPerJob = int | Literal["auto"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureView:
    """An estimated time."""

    value: float
    """Seconds."""
    source: str
    """Measured, given in the study file, or assumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayView:
    """A job array that would be submitted."""

    count: int
    """Elements."""
    throttle: int
    """Elements that run at the same time."""
    trials_per_job: int | None
    """None: until the study is over or the job's time ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModeView:
    """The simulated study in one mode with one size of jobs."""

    mode: Literal["sequential", "batch", "async"]
    trials_per_job: TrialsPerJob
    wall_s: float
    """From submission to the end of the last trial."""
    gpu_hours: float
    """Held by jobs."""
    job_hours: float
    jobs: int
    """Array elements that start."""
    arrays: int
    idle: float
    """Share of the held time in which no trial trains or is scored."""
    trials: int
    """Trials that finish."""
    trials_per_hour: float
    steps: int
    """Follow-up jobs."""
    reason: str
    """Why the study ends; empty where trials are left that no job runs."""
    own: bool
    """Whether the study file says so."""
    recommended: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """The mode and size of jobs to use."""

    mode: Literal["sequential", "batch", "async"]
    trials_per_job: TrialsPerJob
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatsPlan:
    """The simulated repeats of the finalists, after the search."""

    trials: int
    """Trainings: finalists times new seeds."""
    wall_s: float
    """From their first submission."""
    gpu_hours: float
    """Held by jobs; `budget.gpu_hours` holds for search and repeats together."""
    job_hours: float
    jobs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PointMemoryView:
    """The estimated memory of a trial at one point, on one rank, in GiB (2^30 bytes)."""

    peak: float
    """Of a training step."""
    weights: float
    adapter: float
    optimizer: float
    gradients: float
    activations: float
    logits: float
    """The parts never exist all together: the peak is the largest sum of those that do."""
    scoring: float
    """At most, of a pass of scoring; passes that do not fit are halved."""
    micro_batch: int
    checkpointing: bool
    loss_chunk: int | None
    """Positions of a chunk of the loss (train.chunked_loss); None: the loss of a pass is computed at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryView:
    """The estimated memory of the trials, and that of a GPU."""

    unknown: str
    """Why nothing is estimated; empty where it is."""
    first: PointMemoryView | None
    """At the first value of every range."""
    largest: PointMemoryView | None
    """At the values that need the most, with the most economical settings that the file leaves open."""
    rows: str
    """How the lengths of the rows are known."""
    ranks: int
    on_gpu: bool
    """Whether the study asks for GPUs."""
    gpu_gb: float | None
    """As its maker calls it; None: no GPU, or not known."""
    gpu_source: str
    gpu_tensors: float | None
    """What tensors can use of it, GiB."""
    fits: bool | None
    """Whether the largest point fits; None where one of them is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanView:
    """A plan: times it is based on, jobs, modes side by side, and what was recorded of the running study."""

    study: str
    trials: int
    """`budget.trials`."""
    figures: Mapping[str, FigureView]
    """By name: trial_s, load_s, ..."""
    notes: tuple[str, ...]
    """What is only assumed, and what in the study file will cause problems."""
    processes: str
    """Whether a trial's process runs the next trials too, and why not; empty for a function or a command."""
    threads: str
    """Trials side by side and threads of each, as `resources.threads: auto` chose them; empty without it."""
    memory: MemoryView | None
    """None for a function or a command."""
    race: str
    """What `score.race` and `score.rung_items` do; empty without them."""
    jobs: tuple[ArrayView, ...]
    """First submission."""
    array_limit: int | None
    """Slurm's MaxArraySize; None: not known."""
    sbatch: str | None
    """Script of the first job; None without Slurm."""
    no_slurm: str
    """Why there is no script; empty where there is one."""
    modes: tuple[ModeView, ...]
    recommended: Recommendation
    repeats: RepeatsPlan | None
    """None without `search.repeats`."""
    planned: Mapping[str, Value] | None
    """The plan that was recorded at the start of the study (plan.json)."""
    actual: Mapping[str, Value] | None
    """The same numbers, measured so far."""

    @property
    def own(self) -> ModeView:
        """The mode of the study file."""
        return next(mode for mode in self.modes if mode.own)


def plan_view(plan: StudyPlan) -> PlanView:
    """The view of a plan."""
    return PlanView(
        study=plan.config.name,
        trials=plan.config.budget.trials,
        figures={
            name: FigureView(value=round(figure.value, 2), source=figure.source)
            for name, figure in plan.estimates.by_name().items()
        },
        notes=tuple(notes(plan)),
        processes=process_note(plan.config),
        threads=plan.threads,
        memory=_memory(plan.memory) if plan.memory is not None else None,
        race=race_note(plan.config.score.race, plan.config.score.rung_items),
        jobs=tuple(
            ArrayView(count=spec.count, throttle=spec.throttle, trials_per_job=spec.trials)
            for spec in plan.arrays
        ),
        array_limit=plan.array_limit,
        sbatch=plan.sbatch,
        no_slurm=plan.no_slurm,
        modes=tuple(_mode(way, recommended=way is plan.recommended) for way in plan.mode_results),
        recommended=Recommendation(
            mode=plan.recommended.mode, trials_per_job=plan.recommended.trials_per_job, reason=plan.reason
        ),
        repeats=_repeats(plan.repeats) if plan.repeats is not None else None,
        planned=plan.planned,
        actual=plan.actual,
    )


def _memory(plan: MemoryPlan) -> MemoryView:
    return MemoryView(
        unknown=plan.unknown,
        first=_point_memory(plan.first) if plan.first is not None else None,
        largest=_point_memory(plan.largest) if plan.largest is not None else None,
        rows=plan.rows.source if plan.rows is not None else "",
        ranks=plan.ranks,
        on_gpu=plan.on_gpu,
        gpu_gb=plan.gpu.size if plan.gpu is not None else None,
        gpu_source=plan.gpu.source if plan.gpu is not None else "",
        gpu_tensors=round(plan.gpu.tensors_gib, 2) if plan.gpu is not None else None,
        fits=plan.fits,
    )


def _point_memory(chosen: ChosenMemory) -> PointMemoryView:
    found = chosen.estimate
    parts = ("peak", "weights", "adapter", "optimizer", "gradients", "activations", "logits", "scoring")
    return PointMemoryView(
        **{name: round(getattr(found, name) / GIB, 3) for name in parts},
        micro_batch=chosen.micro_batch,
        checkpointing=chosen.checkpointing,
        loss_chunk=found.loss_chunk,
    )


def _repeats(outcome: SimulationResult) -> RepeatsPlan:
    return RepeatsPlan(
        trials=outcome.trials,
        wall_s=round(outcome.wall_s, 1),
        gpu_hours=round(outcome.gpu_hours, 4),
        job_hours=round(outcome.held_s / 3600, 4),
        jobs=outcome.jobs,
    )


def _mode(way: ModeResult, *, recommended: bool) -> ModeView:
    outcome = way.result
    return ModeView(
        mode=way.mode,
        trials_per_job=way.trials_per_job,
        wall_s=round(outcome.wall_s, 1),
        gpu_hours=round(outcome.gpu_hours, 4),
        job_hours=round(outcome.held_s / 3600, 4),
        jobs=outcome.jobs,
        arrays=outcome.arrays,
        idle=round(outcome.idle, 4),
        trials=outcome.trials,
        trials_per_hour=round(outcome.trials / max(outcome.wall_s, 1e-9) * 3600, 2),
        steps=outcome.steps,
        reason=outcome.reason,
        own=way.own,
        recommended=recommended,
    )

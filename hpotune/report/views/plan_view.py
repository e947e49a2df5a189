"""What a study would submit, take and cost: what `plan` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hpotune.config.schema.warm_trials import process_note
from hpotune.config.yaml_source import Value
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

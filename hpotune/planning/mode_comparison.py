"""The study simulated in each mode and with jobs of several sizes, and which of them is recommended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from hpotune.config.schema.study_config import StudyConfig
from hpotune.planning.estimate import SimulationTimes
from hpotune.planning.simulator import SimulationResult, Split, simulate
from hpotune.schedule.gpu_hours import gpus_per_job
from hpotune.schedule.rounds import width

Mode = Literal["sequential", "batch", "async"]
MODES: tuple[Mode, ...] = ("sequential", "batch", "async")
WALL_TIME_TOLERANCE = 1.1
"""Up to this factor of the shortest wall time, the cheaper mode is recommended."""
JOBS_PER_WORKER = 4
"""A medium job runs a fourth of the trials of one worker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModeResult:
    """A mode with a size of jobs, and its simulated result."""

    mode: Mode
    trials_per_job: int | Literal["auto"]
    config: StudyConfig
    result: SimulationResult
    own: bool
    """Whether the study file says so."""

    @property
    def name(self) -> str:
        """`batch, 3 trials a job`."""
        size = self.trials_per_job
        return f"{self.mode}, " + (
            "persistent workers" if size == "auto" else f"{size} trial{'s' if size > 1 else ''} a job"
        )


def compare_modes(
    config: StudyConfig,
    times: SimulationTimes,
    *,
    begin: datetime,
    split: Split | None = None,
    slots: int | None = None,
) -> list[ModeResult]:
    """Every mode with one trial a job, a few, and as many as fit; and the mode of the study file."""
    own = (config.execution.mode, config.execution.trials_per_job)
    options = []
    for mode in MODES:
        sizes: list[int | Literal["auto"]] = [1, medium_job_size(_with(config, mode, 1), times), "auto"]
        if config.execution.place == "hyperqueue":  # its tasks take trials until the study is over
            sizes = ["auto"]
        if mode == own[0] and own[1] not in sizes:
            sizes.insert(2, own[1])
        for size in dict.fromkeys(sizes):
            ours = _with(config, mode, size)
            outcome = simulate(ours, times, begin=begin, split=split, slots=slots)
            options.append(
                ModeResult(
                    mode=mode, trials_per_job=size, config=ours, result=outcome, own=(mode, size) == own
                )
            )
    return options


def medium_job_size(config: StudyConfig, times: SimulationTimes) -> int:
    """Trials of a medium job: a part of a worker's share, at most as many as fit into its time; in batch mode 2.

    In batch mode a job of n runs trials of one round one after another.
    """
    if config.execution.mode == "batch":
        return 2
    each = times.load_s + max(times.trials_s)
    fitting = (config.resources.walltime_min * 60 - times.start_s) / each if each > 0 else math.inf
    share = math.ceil(config.budget.trials / width(config) / JOBS_PER_WORKER)
    return max(2, int(min(share, fitting)))


def _with(config: StudyConfig, mode: Mode, size: int | Literal["auto"]) -> StudyConfig:
    execution = config.execution.model_copy(update={"mode": mode, "trials_per_job": size})
    return config.model_copy(update={"execution": execution})


def recommend(options: Sequence[ModeResult]) -> tuple[ModeResult, str]:
    """The mode with the fewest GPU-hours among those near the shortest wall time, and why.

    Ties: async first, then fewer jobs.

    Modes in which trials are left are considered only if all leave some.
    """
    most = max(option.result.trials for option in options)
    whole = [option for option in options if option.result.trials == most]
    shortest = min(option.result.wall_s for option in whole)
    near = [option for option in whole if option.result.wall_s <= WALL_TIME_TOLERANCE * shortest]
    chosen = min(
        near, key=lambda option: (round(option.result.held_s), -MODES.index(option.mode), option.result.jobs)
    )
    return chosen, _reason(chosen, near, whole)


def _reason(chosen: ModeResult, near: Sequence[ModeResult], whole: Sequence[ModeResult]) -> str:
    unit = "GPU-hours" if gpus_per_job(chosen.config) else "hours of jobs"
    if len(near) > 1:
        why = f"fewest {unit} of the {len(near)} options within 10 % of the shortest wall time"
    else:
        why = "no other option is within 10 % of its wall time"
    cheapest = min(whole, key=lambda option: option.result.held_s)
    if cheapest.result.held_s < 0.9 * chosen.result.held_s:
        saved = 1 - cheapest.result.held_s / chosen.result.held_s
        longer = cheapest.result.wall_s / max(chosen.result.wall_s, 1e-9)
        why += f"; {cheapest.name} would save {saved:.0%} of them and take {longer:.1f} times as long"
    if chosen.mode == "async" and width(chosen.config) > 1:
        why += "; sequential and batch draw each point from more results"
    return why

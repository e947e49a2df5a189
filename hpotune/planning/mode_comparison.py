"""The same study in each mode and with jobs of several sizes, side by side, and the one to recommend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from hpotune.config.schema.study_config import StudyConfig
from hpotune.planning.estimate import Pace
from hpotune.planning.simulator import Outcome, Split, simulate
from hpotune.schedule.gpu_hours import gpus_per_job
from hpotune.schedule.rounds import width

Mode = Literal["sequential", "batch", "async"]
MODES: tuple[Mode, ...] = ("sequential", "batch", "async")
NEAR = 1.1
"""Within this of the shortest wall time, the cheaper way wins."""
FEW = 4
"""A job of a few trials is a fourth of what one worker would do in all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way to run the study, and what it would come to."""

    mode: Mode
    trials_per_job: int | Literal["auto"]
    config: StudyConfig
    outcome: Outcome
    own: bool
    """Whether the study file says so."""

    @property
    def name(self) -> str:
        """`batch, 3 trials a job`."""
        size = self.trials_per_job
        return f"{self.mode}, " + (
            "workers that stay" if size == "auto" else f"{size} trial{'s' if size > 1 else ''} a job"
        )


def compare(
    config: StudyConfig, pace: Pace, *, begin: datetime, split: Split | None = None, slots: int | None = None
) -> list[Way]:
    """Every mode with one trial a job, a few, and workers that stay; and the way of the study file."""
    own = (config.execution.mode, config.execution.trials_per_job)
    ways = []
    for mode in MODES:
        sizes: list[int | Literal["auto"]] = [1, few(_with(config, mode, 1), pace), "auto"]
        if mode == own[0] and own[1] not in sizes:
            sizes.insert(2, own[1])
        for size in dict.fromkeys(sizes):
            ours = _with(config, mode, size)
            outcome = simulate(ours, pace, begin=begin, split=split, slots=slots)
            ways.append(
                Way(mode=mode, trials_per_job=size, config=ours, outcome=outcome, own=(mode, size) == own)
            )
    return ways


def few(config: StudyConfig, pace: Pace) -> int:
    """Trials of a medium job: a part of a worker's share, as many as the job's time holds; in batch mode 2.

    There a job of n does a round's trials one after another.
    """
    if config.execution.mode == "batch":
        return 2
    each = pace.load_s + max(pace.trials_s)
    fitting = (config.resources.walltime_min * 60 - pace.start_s) / each if each > 0 else math.inf
    share = math.ceil(config.budget.trials / width(config) / FEW)
    return max(2, int(min(share, fitting)))


def _with(config: StudyConfig, mode: Mode, size: int | Literal["auto"]) -> StudyConfig:
    execution = config.execution.model_copy(update={"mode": mode, "trials_per_job": size})
    return config.model_copy(update={"execution": execution})


def recommend(ways: Sequence[Way]) -> tuple[Way, str]:
    """The fewest GPU-hours among the ways whose wall time is near the shortest, and why; ties: async, then fewer jobs.

    Ways that leave trials undone are considered only where all do.
    """
    most = max(way.outcome.trials for way in ways)
    whole = [way for way in ways if way.outcome.trials == most]
    shortest = min(way.outcome.wall_s for way in whole)
    near = [way for way in whole if way.outcome.wall_s <= NEAR * shortest]
    chosen = min(near, key=lambda way: (round(way.outcome.held_s), -MODES.index(way.mode), way.outcome.jobs))
    return chosen, _reason(chosen, near, whole)


def _reason(chosen: Way, near: Sequence[Way], whole: Sequence[Way]) -> str:
    unit = "GPU-hours" if gpus_per_job(chosen.config) else "hours of jobs"
    if len(near) > 1:
        why = f"fewest {unit} of the {len(near)} ways within 10 % of the shortest wall time"
    else:
        why = "no other way is within 10 % of its wall time"
    cheapest = min(whole, key=lambda way: way.outcome.held_s)
    if cheapest.outcome.held_s < 0.9 * chosen.outcome.held_s:
        saved = 1 - cheapest.outcome.held_s / chosen.outcome.held_s
        longer = cheapest.outcome.wall_s / max(chosen.outcome.wall_s, 1e-9)
        why += f"; {cheapest.name} would save {saved:.0%} of them and take {longer:.1f} times as long"
    if chosen.mode == "async" and width(chosen.config) > 1:
        why += "; sequential and batch draw each point from more results"
    return why

"""Why a study ends: a kind, by which decisions are made, and a text, which is only printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StopKind = Literal[
    "budget_used", "goal_reached", "plateau", "max_failed", "max_diverged", "equal_failures", "gpu_hours",
    "wall_time", "until", "job_too_short", "list_done",
]  # fmt: skip
"""budget_used: `budget.trials` trials were finished or pruned.

goal_reached: a trial reached every `score.objective.goal`.

plateau: the regret bound fell below `budget.plateau` twice in a row.

max_failed: more trials failed than `budget.max_failed`.

max_diverged: failures of any cause, divergence included, exceed `budget.max_failed` by more than `budget.trials`.

equal_failures: the last `budget.max_equal_failures` failures have one cause and one message.

gpu_hours, wall_time, until: the limit of `budget` with that name.

job_too_short: in a simulated study, a job is too short for a trial to make progress.

list_done: each trial of a sealed test has ended or runs.
"""
FAILURE_KINDS: tuple[StopKind, ...] = ("max_failed", "max_diverged", "equal_failures")


@dataclass(frozen=True, kw_only=True, slots=True)
class StopReason:
    """Why no further trial may start."""

    kind: StopKind
    text: str
    """One line for the user."""

    @property
    def is_failure(self) -> bool:
        """Whether failed trials ended the study."""
        return self.kind in FAILURE_KINDS

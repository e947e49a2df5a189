"""Jobs of the simulated cluster: arrays, their elements, and follow-ups with what they depend on; rows of its trials.

Times are in seconds from the submission of the study. The simulator changes them; nothing here decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.jobs import JobSpec
from hpotune.records.trial import Attempt, TrialRow, Worker


@dataclass(kw_only=True, slots=True)
class SimulatedArray:
    id: int
    spec: JobSpec
    ready: float
    """When its time in the queue is over."""
    jobs: list[SimulatedJob] = field(default_factory=list)
    waiting: int = 0
    running: int = 0
    """Elements that count against the throttle: running ones, and ended ones until Slurm starts the next."""


@dataclass(kw_only=True, slots=True)
class SimulatedJob:
    id: str
    array: SimulatedArray
    submitted: float
    state: str = "PENDING"
    start: float = 0.0
    end: float = 0.0
    taken: int = 0
    idle_since: float | None = None


@dataclass(kw_only=True, slots=True)
class SimulatedFollowUp:
    after: set[str]
    """Jobs that it depends on and that have not ended."""
    any_of: bool


def row_in_state(
    row: TrialRow,
    state: Literal["waiting", "running", "finished"],
    *,
    start: float | None,
    worker: Worker | None,
    attempts: tuple[Attempt, ...] | None = None,
    end: float | None = None,
) -> TrialRow:
    """The row with another state; `dataclasses.replace` takes three times as long."""
    attempts = row.attempts if attempts is None else attempts
    return TrialRow(
        number=row.number, kind=row.kind, state=state, params=row.params, start=start, worker=worker,
        attempts=attempts, end=end,
    )  # fmt: skip


def waiting_row(config: StudyConfig, number: int) -> TrialRow:
    first = number == 0 and config.has_baseline
    return TrialRow(number=number, kind="baseline" if first else "trial", state="waiting", params={})

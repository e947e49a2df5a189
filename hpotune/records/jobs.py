"""Jobs of a study, as plain data: what the cluster reports of one, and what is to be submitted. Never asks Slurm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ACTIVE_STATES = (
    "PENDING", "RUNNING", "REQUEUED", "REQUEUE_FED", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING", "SIGNALING",
    "STAGE_OUT", "STOPPED", "POWER_UP_NODE", "EXPEDITING",
)  # fmt: skip
"""Slurm's states of jobs that have not ended."""
HELD_STATES = ("REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
"""Slurm's states of jobs that wait until they are released; in `JobRow` they are PENDING with this as the reason."""
ENDED_STATES = (
    "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "PREEMPTED",
    "REVOKED", "LAUNCH_FAILED", "RECONFIG_FAIL",
)  # fmt: skip
"""Slurm's states of jobs that have ended. A state of a later version, in no list here, is UNKNOWN."""

JobKind = Literal["worker", "follow-up", "rehearsal", "own"]
"""worker: evaluates trials. follow-up: submits the jobs that are missing after others have ended. rehearsal: rehearses
a study before its first worker starts.

own: a job that hpotune did not submit (a hand-written batch script) and that runs a trial of the study.
"""


def job_kind(stored: str) -> JobKind:
    """The kind that a file of the study names; "step" is what earlier versions wrote for "follow-up".

    Raises: ValueError for any other word.
    """
    kinds: dict[str, JobKind] = {
        "worker": "worker", "follow-up": "follow-up", "step": "follow-up", "rehearsal": "rehearsal", "own": "own",
    }  # fmt: skip
    if stored not in kinds:
        raise ValueError(f"kind: {stored!r} is not a kind of job; needs one of {', '.join(kinds)}")
    return kinds[stored]


_HELD_BY_SLURM = ("launch failed requeued held", "jobholdmaxrequeue")
"""Pending reasons of jobs that Slurm itself holds since it could not start them; JobHeldAdmin and JobHeldUser are a
person's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRow:
    """One Slurm job, or one element of a job array, as the cluster reports it."""

    id: str
    """JOB, or ARRAY_ELEMENT."""
    state: str
    """Slurm's state: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, OUT_OF_MEMORY, NODE_FAIL, PREEMPTED …

    GONE: Slurm no longer knows the job. UNKNOWN: Slurm did not answer, or named a state that hpotune does not know.
    """
    reason: str = ""
    """Why it is pending, in Slurm's word."""
    exit_code: str = ""
    kind: JobKind = "worker"
    estimate: str = ""
    """Expected start as `squeue --start` prints it (2026-06-01T12:00:00); empty where Slurm gives none."""

    @property
    def active(self) -> bool:
        """Whether it is pending or running."""
        return self.state in ACTIVE_STATES

    @property
    def held_by_slurm(self) -> bool:
        """Whether Slurm holds it after failed launches: it never starts unless somebody releases it."""
        return self.state == "PENDING" and self.reason.replace("_", " ").lower() in _HELD_BY_SLURM


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec:
    """A job array to submit: `count` elements, at most `throttle` of them at a time."""

    kind: Literal["worker", "follow-up", "rehearsal"] = "worker"
    count: int
    throttle: int
    trials: int | None = None
    """Trials per element; None: until the study is over or the job's time limit."""
    after: tuple[str, ...] = ()
    """Jobs, or elements of arrays, that a follow-up job depends on."""
    requires: str | None = None
    """A job that must succeed before a worker starts; None: it starts at once."""
    any_of: bool = False
    """True: it starts when one of them has ended. False: when all have."""
    exclude: tuple[str, ...] = ()
    """Nodes to exclude."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobTimes:
    """What Slurm says of a running job's time."""

    end: float
    """When Slurm will end it, in Unix seconds."""
    limit_s: float | None = None
    """Its time limit; None: unlimited, or not known."""
    preempted: bool = False
    """Whether it ends before its time limit: it is being preempted, and uses its grace time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobUsage:
    """What a job used, by Slurm's accounting."""

    id: str
    """JOB, or ARRAY_ELEMENT."""
    state: str
    """Slurm's state, without who cancelled it."""
    elapsed_s: int | None = None
    max_rss_gb: float | None = None
    """Highest resident memory of one task of any of its steps, in GB (10^9 bytes); None: not sampled."""
    tres: str = ""
    """What it was given, as Slurm writes it: cpu=4,gres/gpu=1,mem=16G,node=1."""
    energy_wh: float | None = None
    """Of its nodes while it ran (ConsumedEnergyRaw); None: this cluster measures none."""

    @property
    def ended(self) -> bool:
        """Whether the numbers are final."""
        return self.state in ENDED_STATES

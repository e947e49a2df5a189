"""When the worker's job ends: as known at its start, and as Slurm says it later. A time limit may be raised or cut.

It asks only on request, at most once in ASK_AGAIN_S, and keeps what it knows where nothing answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hpotune.records.jobs import JobTimes
from hpotune.records.trial import Failure, Worker
from hpotune.schedule.job_fit import MARGIN_S
from hpotune.workspace.timeline import log

AskTimes = Callable[[float], JobTimes | None]
"""What Slurm says of this job's time, at most so many seconds ago; None where it does not answer."""
AskLoss = Callable[[], Failure | None]
"""Why Slurm has taken this job, such as a lost node; None where it has not, or where that is not known."""
ASK_AGAIN_S = 30.0
_CHANGE_S = 5
"""Slurm's times are whole seconds: an end that differs by less is the same."""


class JobEnd:
    """The end of one job; `known` is the latest answer."""

    def __init__(
        self,
        end: float | None,
        *,
        limit_s: float | None = None,
        ask: AskTimes | None = None,
        ask_loss: AskLoss | None = None,
    ) -> None:
        self.known = end
        """In Unix seconds, without asking; None: not known."""
        self._limit_s = limit_s
        """The time limit at the job's start; None: not known."""
        self._ask = ask
        self._ask_loss = ask_loss
        self._asked_at: float | None = None
        self._answer: JobTimes | None = None

    def ask(self) -> bool:
        """Ask Slurm, unless it was asked within ASK_AGAIN_S seconds; whether the job ends later than was known."""
        now = time.monotonic()
        if self._asked_at is not None and now - self._asked_at < ASK_AGAIN_S:
            return False
        return self._ask_now(ASK_AGAIN_S)

    def _ask_now(self, max_age_s: float) -> bool:
        if self._ask is None:
            return False
        before, self._answer = self.known, self._ask(max_age_s)
        self._asked_at = time.monotonic()
        if self._answer is None:
            return False
        self.known = self._answer.end
        later_s = self.known - before if before is not None else 0.0
        if abs(later_s) > _CHANGE_S:
            log(
                f"Slurm ends this job {abs(later_s):.0f} s {'later' if later_s > 0 else 'earlier'} than was known"
            )
        return later_s > _CHANGE_S

    def loss(
        self,
        worker: Worker,
        *,
        warned: bool,
        left_s: Callable[[], float | None],
        asked_s: float = 0.0,
    ) -> Failure | None:
        """Why the cluster ended the job; None if a user stopped it.

        `warned`: whether the job was asked to write a checkpoint, by Slurm or because `left_s` was used up; else it was
        asked to end (SIGTERM), which the cluster does without a warning where a time limit was cut below the time used.

        `asked_s`: seconds since it was asked to end; an answer of Slurm's since then counts.
        """
        left = left_s()
        if left is None or left > 0:  # else the worker itself has just seen that its time is out
            self._ask_now(asked_s)  # the workers of an array end together: one of them asks Slurm
            left = left_s()
        answer, job, on = self._answer, f"its job {worker.job}", f"on {worker.host}"
        cut = self._cut()
        if answer is not None and not answer.preempted and cut:
            return Failure(
                cause="timeout", message=f"the time limit of {job} was cut {cut}, and its time was out {on}"
            )
        if not warned:
            return self._ask_loss() if self._ask_loss is not None else None
        early = left is not None and left > 2 * MARGIN_S if answer is None else answer.preempted
        if early:
            return Failure(cause="preempted", message=f"{job} was preempted {on}")
        if answer is not None and left is not None and left > 2 * MARGIN_S:
            return Failure(cause="preempted", message=f"{job} was asked to end before its time was out {on}")
        return Failure(cause="timeout", message=f"the time of {job} was out {on}")

    def _cut(self) -> str:
        """`from 4 to 2 minutes` where the time limit is lower than at the start; empty otherwise."""
        now = self._answer.limit_s if self._answer is not None else None
        if now is None or self._limit_s is None or now > self._limit_s - _CHANGE_S:
            return ""
        return f"from {self._limit_s / 60:g} to {now / 60:g} minutes"

"""A simulated Slurm cluster: an event queue of jobs and trials. schedule/ decides what is submitted and what fits.

An array waits `queue_s`; its elements start as throttle and cluster allow, each `gap_s` after the end of another; a job
claims its first trial after `start_s`; each trial loads, then trains. Time in the queue and under the throttle overlap;
what a follow-up submits waits in the queue again. No trial fails.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from hpotune.config.schema.study_config import SearchConfig, StudyConfig
from hpotune.planning.estimate import SimulationTimes
from hpotune.planning.simulated_jobs import (
    SimulatedArray,
    SimulatedFollowUp,
    SimulatedJob,
    row_in_state,
    waiting_row,
)
from hpotune.records.jobs import JobRow, JobSpec
from hpotune.records.stop_reason import StopReason
from hpotune.records.trial import Attempt, Span, TrialRow, Worker
from hpotune.schedule.gpu_hours import gpus_per_job
from hpotune.schedule.job_fit import MARGIN_S, fits
from hpotune.schedule.next_jobs import next_jobs
from hpotune.schedule.rounds import round_start, width
from hpotune.schedule.stopping_criterion import stop_reason

SEEN = 32
"""Finished trials by which a worker judges what fits: the last ones, so that large studies stay quick."""
EXACT = 500
"""Trials up to which budgets of time are looked at before every claim; of larger studies before each k-th."""
_SHORT = "a job of {} is too short for a trial to get further; raise resources.time"
Split = Callable[[JobSpec], list[JobSpec]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationResult:
    """The result of a simulated study."""

    spans: tuple[Span, ...]
    """Start and end in seconds from the submission; a trial has the phases load and train."""
    wall_s: float
    """From the submission to the end of the last trial."""
    held_s: float
    """Sum over all jobs, from start to end."""
    gpu_hours: float
    """Held by jobs, also while no trial runs."""
    jobs: int
    """Array elements that started."""
    arrays: int
    """Submissions."""
    steps: int
    """Follow-up jobs that ran."""
    trials: int
    """Finished."""
    idle: float
    """Share of the held time in which no trial trained or scored: starting, loading, waiting for others."""
    reason: str
    """Why the study ended; empty where trials are left that no job runs."""


def simulate(
    config: StudyConfig,
    times: SimulationTimes,
    *,
    begin: datetime,
    split: Split | None = None,
    slots: int | None = None,
) -> SimulationResult:
    """The simulated study. `split` splits arrays by MaxArraySize; `slots`: jobs that can run at the same time."""
    return _Cluster(config, times, begin=begin, split=split, slots=slots).run()


class _Cluster:
    def __init__(
        self,
        config: StudyConfig,
        times: SimulationTimes,
        *,
        begin: datetime,
        split: Split | None,
        slots: int | None,
    ) -> None:
        # the times include how far each trial is promoted; here it trains in one stage
        self.config = config.model_copy(update={"search": SearchConfig()})
        self.times, self.begin, self.slots = times, begin, slots
        self.working_s = config.resources.working_s
        self.look_s = times.look_s  # a mean over all trials
        self.split: Split = split or (lambda spec: [spec])
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = 0
        self.rows = [waiting_row(config, number) for number in range(config.budget.trials)]
        self.waiting = list(range(config.budget.trials))
        self.finished = [False] * config.budget.trials
        self.ended: list[TrialRow] = []
        self.longest_s = 0.0
        self.lead = 0
        """Leading finished trials whose jobs have ended."""
        self.claimed = 0
        """Trials up to the last one that a worker has claimed."""
        self.round = 0
        self.arrays: list[SimulatedArray] = []
        self.jobs: list[SimulatedJob] = []
        self.active: dict[str, SimulatedJob] = {}
        self.idle: list[SimulatedJob] = []
        self.follow_ups: list[SimulatedFollowUp] = []
        self.follow_ups_run = 0
        self.spans: list[Span] = []
        self.claims = 0
        self.last_end = 0.0
        self.stopped: StopReason | None = None

    def run(self) -> SimulationResult:
        self._submit_missing()
        while self.events:
            self.now, _, act = heapq.heappop(self.events)
            act()
        return self._outcome()

    def _at(self, when: float, act: Callable[[], None]) -> None:
        self.order += 1  # of equal times the older event comes first
        heapq.heappush(self.events, (when, self.order, act))

    # Submitting

    def _submit_missing(self) -> None:
        """As launch/follow_up.py: submit the next jobs, and a follow-up."""
        rows = [JobRow(id=job.id, state=job.state) for job in self.active.values()]
        due = next_jobs(*self._ahead(), rows, now=self._moment())
        new = [self._submit(part) for spec in due for part in self.split(spec)]
        if self.config.resources.follow_up is True and self.active and (new or not self.follow_ups):
            any_of = self.config.execution.trials_per_job == "auto"
            self.follow_ups.append(SimulatedFollowUp(after=set(self.active), any_of=any_of))

    def _ahead(self) -> tuple[StudyConfig, list[TrialRow]]:
        """The study without its leading rounds of finished trials, as one with a smaller budget: the same jobs are due.

        Trials that nobody has claimed yet have no row, as in a store whose rows are made ahead. Budgets of time need
        all trials, and trials of active jobs with a number of trials count as theirs.
        """
        if self._has_time_budget():
            return self.config, self.rows
        counted = self.active if self.config.execution.trials_per_job != "auto" else {}
        while self.lead < len(self.rows) and self.finished[self.lead]:
            worker = self.rows[self.lead].worker
            if worker is not None and worker.job in counted:
                break
            self.lead += 1
        lead = self.lead - self.lead % width(self.config)
        budget = self.config.budget.model_copy(update={"trials": len(self.rows) - lead})
        return self.config.model_copy(update={"budget": budget}), self.rows[lead : self.claimed]

    def _submit(self, spec: JobSpec) -> SimulatedArray:
        array = SimulatedArray(
            id=len(self.arrays) + 1,
            spec=spec,
            ready=self.now + self.times.queue_s,
            waiting=spec.count,
        )
        array.jobs = [
            SimulatedJob(id=f"{array.id}_{index}", array=array, submitted=self.now)
            for index in range(spec.count)
        ]
        self.arrays.append(array)
        self.jobs += array.jobs
        self.active |= {job.id: job for job in array.jobs}
        self._at(array.ready, self._start_jobs)
        return array

    def _start_jobs(self) -> None:
        """Start the elements that can start, oldest array first."""
        for array in [array for array in self.arrays if array.waiting]:
            while array.waiting and array.running < array.spec.throttle and self.now >= array.ready:
                if self.slots is not None and sum(a.running for a in self.arrays) >= self.slots:
                    return
                self._start(array.jobs[-array.waiting])

    def _start(self, job: SimulatedJob) -> None:
        job.array.waiting -= 1
        job.array.running += 1
        job.state, job.start = "RUNNING", self.now
        self._span(job, None, "queue", job.submitted)
        ready = self.now + self.times.start_s
        self._span(job, None, "start", self.now, end=ready)
        self._at(ready, lambda: self._claim(job))

    # A worker

    def _claim(self, job: SimulatedJob) -> None:
        """A free worker claims a trial, waits for its round, or ends."""
        limit = job.array.spec.trials
        if (limit is not None and job.taken >= limit) or self._over():
            return self._end(job)
        number = self._next_trial()
        if number is None:
            return self._wait(job) if self._more_rounds() else self._end(job)
        left_s = self._deadline(job) - self.now
        # what is expected is never more than the longest trial took
        ample = bool(self.ended) and self.longest_s <= left_s - MARGIN_S
        if not (ample or fits(self.config, self.ended[-SEEN:], self.rows[number], left_s=left_s)):
            return self._end(job)
        self._no_longer_idle(job)
        self._take(job, number)

    def _over(self) -> bool:
        if not self._has_time_budget():
            return bool(self.stopped)  # the rows are the budget, and none fails or reaches a goal
        self.claims += 1
        if not self.stopped and self.claims % max(1, len(self.rows) // EXACT) == 0:
            self.stopped = stop_reason(self.config, self.rows, now=self._moment())
        return bool(self.stopped)

    def _has_time_budget(self) -> bool:
        budget = self.config.budget
        return bool(budget.gpu_hours or budget.wall_time or budget.until)

    def _next_trial(self) -> int | None:
        """The next waiting trial, if its round has started."""
        number = self.waiting[0] if self.waiting else None
        return number if number is not None and number < self._may_start() else None

    def _may_start(self) -> int:
        """As schedule/rounds.py:may_start; finished rounds are not counted again."""
        if self.config.execution.mode == "async":
            return len(self.rows)
        ahead = self.finished[self.round : self.round + 2 * width(self.config)]
        self.round += round_start(self.config, ahead)
        return min(len(self.rows), self.round + width(self.config))

    def _more_rounds(self) -> bool:
        return bool(self.waiting) and self._may_start() < len(self.rows)

    def _wait(self, job: SimulatedJob) -> None:
        """Wait for the round, at most to the end of its job."""
        if job.idle_since is None:
            job.idle_since = self.now
            self.idle.append(job)
            self._at(self._deadline(job), lambda: self._time_out(job))

    def _time_out(self, job: SimulatedJob) -> None:
        if job.idle_since is not None:
            self._end(job)

    def _take(self, job: SimulatedJob, number: int) -> None:
        heapq.heappop(self.waiting)
        self.claimed = max(self.claimed, number + 1)
        job.taken += 1
        row, seconds = self.rows[number], self._seconds(number)
        start = self._unix()
        worker = Worker(job=job.id, host="n", pid=1)
        self.rows[number] = row_in_state(row, "running", start=start, worker=worker)
        deadline = self._deadline(job)
        loaded = self.now + self.times.load_s
        done = loaded + max(0.0, seconds - self._trained(row))
        end = done if done <= deadline else max(deadline, self.now)
        self._span(job, number, "load", self.now, end=min(loaded, end))
        self._span(job, number, "train", loaded, end=end)
        self._at(end, lambda: self._end_trial(job, number, finished=done <= deadline))

    def _end_trial(self, job: SimulatedJob, number: int, *, finished: bool) -> None:
        row = self.rows[number]
        assert row.worker is not None, "it ran"
        assert row.start is not None, "it ran"
        attempt = Attempt(
            worker=row.worker,
            start=row.start,
            end=self._unix(),
            outcome="finished" if finished else "paused",
            cause=None if finished else "timeout",
            gpus=gpus_per_job(self.config),
        )
        attempts = (*row.attempts, attempt)
        self.last_end = max(self.last_end, self.now)
        if not finished:
            self.rows[number] = row_in_state(
                row, "waiting", start=row.start, worker=row.worker, attempts=attempts
            )
            if attempt.seconds > self.times.load_s:
                heapq.heappush(self.waiting, number)
            else:
                self.stopped = self._too_short()
            self._end(job)
            return self._wake()
        self.rows[number] = row_in_state(
            row, "finished", start=row.start, worker=row.worker, attempts=attempts, end=self._unix()
        )
        self.finished[number] = True
        self.ended.append(self.rows[number])
        self.longest_s = max(self.longest_s, self.rows[number].seconds)
        self._claim(job)
        self._wake()

    def _wake(self) -> None:
        """Let the workers that wait for a round see, when they next read the store, that it or the study is over."""
        if self.idle and (self.stopped or self._next_trial() is not None or not self._more_rounds()):
            for job in self.idle:
                assert job.idle_since is not None, "in the list since then"
                looks = math.ceil(round((self.now - job.idle_since) / self.look_s, 6))
                self._at(job.idle_since + looks * self.look_s, partial(self._look, job))

    def _look(self, job: SimulatedJob) -> None:
        if job.idle_since is not None:
            self._claim(job)

    def _no_longer_idle(self, job: SimulatedJob) -> None:
        if job.idle_since is not None:
            self._span(job, None, "idle", job.idle_since)
            job.idle_since = None
            self.idle.remove(job)

    def _end(self, job: SimulatedJob) -> None:
        """End the job; start what waits for its slot or its end."""
        job.state, job.end = "COMPLETED", self.now
        self._no_longer_idle(job)
        self._at(self.now + self.times.gap_s, lambda: self._free_slot(job.array))
        del self.active[job.id]
        for follow_up in [follow_up for follow_up in self.follow_ups if job.id in follow_up.after]:
            follow_up.after.discard(job.id)
            if follow_up.any_of or not follow_up.after:
                self.follow_ups.remove(follow_up)
                self._at(self.now + self.times.queue_s + self.times.follow_up_s, self._run_follow_up)
        if self.config.resources.follow_up == "worker" and not self.active:
            self._at(self.now + self.times.follow_up_s, self._submit_missing)

    def _free_slot(self, array: SimulatedArray) -> None:
        array.running -= 1
        self._start_jobs()

    def _run_follow_up(self) -> None:
        self.follow_ups_run += 1
        if not any(job.taken or job.id in self.active for job in self.arrays[-1].jobs):
            self.stopped = self.stopped or self._too_short()
        if not self.stopped:
            self._submit_missing()

    def _too_short(self) -> StopReason:
        return StopReason(kind="job_too_short", text=_SHORT.format(self.config.resources.time))

    # Numbers

    def _seconds(self, number: int) -> float:
        """Seconds that a trial trains and is scored, from its first step."""
        if self.rows[number].kind == "baseline" and self.times.baseline_s is not None:
            return self.times.baseline_s
        first = 1 if self.rows[0].kind == "baseline" else 0
        return self.times.trials_s[(number - first) % len(self.times.trials_s)]

    def _trained(self, row: TrialRow) -> float:
        """Seconds of training in its checkpoint."""
        return sum(max(0.0, attempt.seconds - self.times.load_s) for attempt in row.attempts)

    def _deadline(self, job: SimulatedJob) -> float:
        """When the job is signalled to end."""
        return job.start + self.working_s

    def _unix(self) -> float:
        return self.begin.timestamp() + self.now

    def _moment(self) -> datetime:
        return self.begin + timedelta(seconds=self.now)

    def _span(
        self, job: SimulatedJob, trial: int | None, phase: str, start: float, *, end: float | None = None
    ) -> None:
        end = self.now if end is None else end
        if end > start:
            self.spans.append(Span(job=job.id, trial=trial, phase=phase, start=start, end=end))

    def _outcome(self) -> SimulationResult:
        ran = [job for job in self.jobs if job.state != "PENDING"]
        held = sum(job.end - job.start for job in ran)
        useful = sum(span.end - span.start for span in self.spans if span.phase == "train")
        count = sum(self.finished)
        reason = stop_reason(self.config, self.rows, now=self._moment()) or self.stopped
        return SimulationResult(
            spans=tuple(self.spans),
            wall_s=self.last_end,
            held_s=held,
            gpu_hours=held * gpus_per_job(self.config) / 3600,
            jobs=len(ran),
            arrays=len(self.arrays),
            steps=self.follow_ups_run,
            trials=count,
            idle=1 - useful / held if held else 0.0,
            reason=reason.text if reason else "",
        )

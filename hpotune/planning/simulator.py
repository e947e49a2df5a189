"""A cluster in a heap of events. What is submitted, what may start and what fits is asked of `plan/`, as in a real run.

How it goes: an array waits `queue_s`; its elements start as far as throttle and cluster allow, one `turn_s` after
another; a job takes its first trial after `start_s`; each trial loads, then trains. Waiting in the queue and waiting
for the throttle overlap; what a follow-up step submits waits in the queue anew. No trial fails.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from hpotune.config.schema.study_config import SearchConfig, StudyConfig
from hpotune.planning.estimate import Pace
from hpotune.records.jobs import JobRow, JobSpec
from hpotune.records.stop_reason import StopReason
from hpotune.records.trial import Attempt, Span, TrialRow, Worker
from hpotune.schedule.gpu_hours import gpus_per_job
from hpotune.schedule.job_fit import fits
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
class Outcome:
    """What a study would come to."""

    spans: tuple[Span, ...]
    """Start and end count from the submission, in seconds; trials are cut into load and train."""
    wall_s: float
    """From the submission to the end of the last trial."""
    held_s: float
    """Of all jobs together, from start to end."""
    gpu_hours: float
    """Held by jobs, not only by trials."""
    jobs: int
    """Elements of arrays that started."""
    arrays: int
    """Submissions of them."""
    steps: int
    """Follow-up jobs that ran."""
    trials: int
    """Finished."""
    idle: float
    """Share of the held time in which no trial trained or scored: starting, loading, waiting for others."""
    reason: str
    """Why it ended; empty where trials are left and nothing does them."""


@dataclass(kw_only=True, slots=True)
class _Array:
    id: int
    spec: JobSpec
    ready: float
    """When it has waited long enough in the queue."""
    jobs: list[_Job] = field(default_factory=list)
    waiting: int = 0
    running: int = 0
    """Elements whose place is taken: by themselves, or until the cluster has turned to the next."""


@dataclass(kw_only=True, slots=True)
class _Job:
    id: str
    array: _Array
    submitted: float
    state: str = "PENDING"
    start: float = 0.0
    end: float = 0.0
    taken: int = 0
    idle_since: float | None = None


@dataclass(kw_only=True, slots=True)
class _Step:
    after: set[str]
    """Jobs that it waits for and that have not ended."""
    any_of: bool


def simulate(
    config: StudyConfig,
    pace: Pace,
    *,
    begin: datetime,
    split: Split | None = None,
    slots: int | None = None,
) -> Outcome:
    """Replays the whole study. `split` cuts arrays as the cluster wants; `slots`: jobs that can run at once."""
    return _Cluster(config, pace, begin=begin, split=split, slots=slots).run()


class _Cluster:
    def __init__(
        self, config: StudyConfig, pace: Pace, *, begin: datetime, split: Split | None, slots: int | None
    ) -> None:
        # the pace knows how far each climbs; here it does so in one stretch
        self.config = config.model_copy(update={"search": SearchConfig()})
        self.pace, self.begin, self.slots = pace, begin, slots
        self.split: Split = split or (lambda spec: [spec])
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = 0
        self.rows = [_waiting(config, number) for number in range(config.budget.trials)]
        self.waiting = list(range(config.budget.trials))
        self.finished = [False] * config.budget.trials
        self.ended: list[TrialRow] = []
        self.round = 0
        self.arrays: list[_Array] = []
        self.jobs: list[_Job] = []
        self.active: dict[str, _Job] = {}
        self.idle: list[_Job] = []
        self.steps: list[_Step] = []
        self.steps_run = 0
        self.spans: list[Span] = []
        self.claims = 0
        self.last_end = 0.0
        self.stopped: StopReason | None = None

    def run(self) -> Outcome:
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
        """What `launch/follow_up.py` does: ask the planner, submit, leave a step behind."""
        rows = [JobRow(id=job.id, state=job.state) for job in self.active.values()]
        due = next_jobs(self.config, self.rows, rows, now=self._moment())
        new = [self._submit(part) for spec in due for part in self.split(spec)]
        if self.config.resources.follow_up is True and self.active and (new or not self.steps):
            any_of = self.config.execution.trials_per_job == "auto"
            self.steps.append(_Step(after=set(self.active), any_of=any_of))

    def _submit(self, spec: JobSpec) -> _Array:
        array = _Array(
            id=len(self.arrays) + 1, spec=spec, ready=self.now + self.pace.queue_s, waiting=spec.count
        )
        array.jobs = [
            _Job(id=f"{array.id}_{index}", array=array, submitted=self.now) for index in range(spec.count)
        ]
        self.arrays.append(array)
        self.jobs += array.jobs
        self.active |= {job.id: job for job in array.jobs}
        self._at(array.ready, self._start_jobs)
        return array

    def _start_jobs(self) -> None:
        """Starts what may start, oldest array first."""
        for array in [array for array in self.arrays if array.waiting]:
            while array.waiting and array.running < array.spec.throttle and self.now >= array.ready:
                if self.slots is not None and sum(a.running for a in self.arrays) >= self.slots:
                    return
                self._start(array.jobs[-array.waiting])

    def _start(self, job: _Job) -> None:
        job.array.waiting -= 1
        job.array.running += 1
        job.state, job.start = "RUNNING", self.now
        self._span(job, None, "queue", job.submitted)
        ready = self.now + self.pace.start_s
        self._span(job, None, "start", self.now, end=ready)
        self._at(ready, lambda: self._claim(job))

    # A worker

    def _claim(self, job: _Job) -> None:
        """What a free worker does: takes a trial, waits for its round, or ends."""
        limit = job.array.spec.trials
        if (limit is not None and job.taken >= limit) or self._over():
            return self._end(job)
        number = self._next_trial()
        if number is None:
            return self._wait(job) if self._more_rounds() else self._end(job)
        left_s = self._until(job) - self.now
        if not fits(self.config, self.ended[-SEEN:], self.rows[number], left_s=left_s):
            return self._end(job)
        self._no_longer_idle(job)
        self._take(job, number)

    def _over(self) -> bool:
        budget = self.config.budget
        if not (budget.gpu_hours or budget.wall_time or budget.until):
            return bool(self.stopped)  # the rows are the budget, and none fails or reaches a goal
        self.claims += 1
        if not self.stopped and self.claims % max(1, len(self.rows) // EXACT) == 0:
            self.stopped = stop_reason(self.config, self.rows, now=self._moment())
        return bool(self.stopped)

    def _next_trial(self) -> int | None:
        """The waiting trial that comes next, where its round has begun."""
        number = self.waiting[0] if self.waiting else None
        return number if number is not None and number < self._may_start() else None

    def _may_start(self) -> int:
        """As plan.rounds.may_start; rounds that are over are not counted again each time."""
        if self.config.execution.mode == "async":
            return len(self.rows)
        ahead = self.finished[self.round : self.round + 2 * width(self.config)]
        self.round += round_start(self.config, ahead)
        return min(len(self.rows), self.round + width(self.config))

    def _more_rounds(self) -> bool:
        return bool(self.waiting) and self._may_start() < len(self.rows)

    def _wait(self, job: _Job) -> None:
        """Waits for the round, at most to the end of its job."""
        if job.idle_since is None:
            job.idle_since = self.now
            self.idle.append(job)
            self._at(self._until(job), lambda: self._time_out(job))

    def _time_out(self, job: _Job) -> None:
        if job.idle_since is not None:
            self._end(job)

    def _take(self, job: _Job, number: int) -> None:
        heapq.heappop(self.waiting)
        job.taken += 1
        row, seconds = self.rows[number], self._seconds(number)
        begun = self._unix()
        worker = Worker(job=job.id, host="n", pid=1)
        self.rows[number] = replace(row, state="running", start=begun, worker=worker)
        asked = self._until(job)
        loaded = self.now + self.pace.load_s
        done = loaded + max(0.0, seconds - self._trained(row))
        end = done if done <= asked else max(asked, self.now)
        self._span(job, number, "load", self.now, end=min(loaded, end))
        self._span(job, number, "train", loaded, end=end)
        self._at(end, lambda: self._told(job, number, finished=done <= asked))

    def _told(self, job: _Job, number: int, *, finished: bool) -> None:
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
            self.rows[number] = replace(row, state="waiting", attempts=attempts)
            if attempt.seconds > self.pace.load_s:
                heapq.heappush(self.waiting, number)
            else:
                self.stopped = self._too_short()
            self._end(job)
            return self._wake()
        self.rows[number] = replace(row, state="finished", attempts=attempts, end=self._unix())
        self.finished[number] = True
        self.ended.append(self.rows[number])
        self._claim(job)
        self._wake()

    def _wake(self) -> None:
        """Those that wait for the round find out when they look next, that it or the study is over."""
        if self.idle and (self.stopped or self._next_trial() is not None or not self._more_rounds()):
            for job in self.idle:
                assert job.idle_since is not None, "in the list since then"
                looks = math.ceil(round((self.now - job.idle_since) / self.pace.look_s, 6))
                self._at(job.idle_since + looks * self.pace.look_s, partial(self._look, job))

    def _look(self, job: _Job) -> None:
        if job.idle_since is not None:
            self._claim(job)

    def _no_longer_idle(self, job: _Job) -> None:
        if job.idle_since is not None:
            self._span(job, None, "idle", job.idle_since)
            job.idle_since = None
            self.idle.remove(job)

    def _end(self, job: _Job) -> None:
        """The job ends; what waits for its place or for its end comes."""
        job.state, job.end = "COMPLETED", self.now
        self._no_longer_idle(job)
        self._at(self.now + self.pace.turn_s, lambda: self._turn(job.array))
        del self.active[job.id]
        for step in [step for step in self.steps if job.id in step.after]:
            step.after.discard(job.id)
            if step.any_of or not step.after:
                self.steps.remove(step)
                self._at(self.now + self.pace.queue_s + self.pace.step_s, self._step)
        if self.config.resources.follow_up == "worker" and not self.active:
            self._at(self.now + self.pace.step_s, self._submit_missing)

    def _turn(self, array: _Array) -> None:
        array.running -= 1
        self._start_jobs()

    def _step(self) -> None:
        self.steps_run += 1
        if not any(job.taken or job.id in self.active for job in self.arrays[-1].jobs):
            self.stopped = self.stopped or self._too_short()
        if not self.stopped:
            self._submit_missing()

    def _too_short(self) -> StopReason:
        return StopReason(kind="job_too_short", text=_SHORT.format(self.config.resources.time))

    # Numbers

    def _seconds(self, number: int) -> float:
        """How long a trial trains and scores, from scratch."""
        if self.rows[number].kind == "baseline" and self.pace.baseline_s is not None:
            return self.pace.baseline_s
        first = 1 if self.rows[0].kind == "baseline" else 0
        return self.pace.trials_s[(number - first) % len(self.pace.trials_s)]

    def _trained(self, row: TrialRow) -> float:
        """What its checkpoint holds."""
        return sum(max(0.0, attempt.seconds - self.pace.load_s) for attempt in row.attempts)

    def _until(self, job: _Job) -> float:
        """When the job is told to end."""
        return job.start + self.config.resources.working_s

    def _unix(self) -> float:
        return self.begin.timestamp() + self.now

    def _moment(self) -> datetime:
        return self.begin + timedelta(seconds=self.now)

    def _span(
        self, job: _Job, trial: int | None, phase: str, start: float, *, end: float | None = None
    ) -> None:
        end = self.now if end is None else end
        if end > start:
            self.spans.append(Span(job=job.id, trial=trial, phase=phase, start=start, end=end))

    def _outcome(self) -> Outcome:
        ran = [job for job in self.jobs if job.state != "PENDING"]
        held = sum(job.end - job.start for job in ran)
        useful = sum(span.end - span.start for span in self.spans if span.phase == "train")
        count = sum(self.finished)
        reason = stop_reason(self.config, self.rows, now=self._moment()) or self.stopped
        return Outcome(
            spans=tuple(self.spans),
            wall_s=self.last_end,
            held_s=held,
            gpu_hours=held * gpus_per_job(self.config) / 3600,
            jobs=len(ran),
            arrays=len(self.arrays),
            steps=self.steps_run,
            trials=count,
            idle=1 - useful / held if held else 0.0,
            reason=reason.text if reason else "",
        )


def _waiting(config: StudyConfig, number: int) -> TrialRow:
    first = number == 0 and config.checks.baseline and config.model is not None
    return TrialRow(number=number, kind="baseline" if first else "trial", state="waiting", params={})

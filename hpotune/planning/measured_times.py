"""Measured times of a study: how long its jobs waited and started, its trials loaded and ran. Reads files only.

Clocks of several hosts meet here: that of a node, of the file server, of this machine. A time that no clock can have
measured (an end before its start, longer than the study is old) is left out and counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import Value
from hpotune.planning.estimate import MeasuredTimes
from hpotune.records.jobs import JobKind
from hpotune.records.trial import TrialRow
from hpotune.schedule.gpu_hours import gpus_per_job
from hpotune.slurm.study_jobs import SubmittedJob, submitted_jobs
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.heartbeat import HeartbeatRecord, read_heartbeat
from hpotune.workspace.timeline import read_spans

_LOADING = ("load", "data")
_MOST_READ = 50
"""How many of the last trials are read for their loading time, which is about equal in all."""
_SLACK_S = 86_400
"""By how much the clocks of two hosts may differ before a long time is impossible."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """One job array, and the heartbeats of its elements that have started."""

    id: str
    submitted: float
    """Unix seconds, by the file system's clock."""
    throttle: int
    heartbeats: tuple[HeartbeatRecord, ...]
    """By their start."""


def measured_times(folder: StudyFolder, rows: Sequence[TrialRow]) -> MeasuredTimes:
    """All times measured so far."""
    done = [row for row in rows if row.decided and row.attempts]
    jobs = submissions(folder)
    possible = _Possible(longest_s=_age_s(folder, jobs) + _SLACK_S)
    queues = possible.of(wait for job in jobs for wait in _waits(job))
    usual = median(queues) if queues else 0.0
    starts, at = _spans(folder)
    loads = (s for row in done[-_MOST_READ:] if (s := _loading(folder, row, at)) is not None)
    return MeasuredTimes(
        trials=possible.of(_seconds(row, at) for row in done if row.kind == "trial"),
        baselines=possible.of(_seconds(row, at) for row in done if row.kind == "baseline"),
        loads=possible.of(loads),
        starts=possible.of(starts),
        queues=queues,
        gaps=possible.of(gap for job in jobs for gap in _gaps(job)),
        follow_ups=tuple(max(0.0, s - usual) for s in possible.of(_follow_ups(jobs))),
        impossible=possible.left_out,
    )


class _Possible:
    """Leaves out what no clock can have measured, and counts it."""

    def __init__(self, *, longest_s: float) -> None:
        self._longest_s = longest_s
        self.left_out = 0

    def of(self, times: Iterable[float]) -> tuple[float, ...]:
        """The possible ones of these seconds."""
        every = list(times)
        kept = tuple(seconds for seconds in every if 0 <= seconds <= self._longest_s)
        self.left_out += len(every) - len(kept)
        return kept


def _age_s(folder: StudyFolder, jobs: Sequence[Submission]) -> float:
    """Seconds since the study was made or first submitted, by the clock of its file system."""
    made = [job.submitted for job in jobs]
    with suppress(OSError):
        made.append(folder.resolved_file.stat().st_mtime)
    return max(0.0, time.time() - min(made)) if made else float("inf")


def submissions(folder: StudyFolder, *, kind: JobKind = "worker") -> list[Submission]:
    """The submissions of a kind, oldest first."""
    return [_submission(folder, job) for job in submitted_jobs(folder) if job.kind == kind]


def _submission(folder: StudyFolder, job: SubmittedJob) -> Submission:
    heartbeats = [read_heartbeat(folder, f"{job.id}_{index}") for index in range(job.count)]
    return Submission(
        id=job.id,
        submitted=(folder.jobs / job.id / "job.json").stat().st_mtime,
        throttle=job.throttle,
        heartbeats=tuple(sorted((beat for beat in heartbeats if beat), key=lambda beat: beat.start)),
    )


def _waits(job: Submission) -> Iterator[float]:
    """Seconds in the queue of the elements that the throttle did not hold back."""
    for beat in job.heartbeats[: job.throttle]:
        yield beat.start - job.submitted


def _gaps(job: Submission) -> Iterator[float]:
    """Seconds from the end of an element to the start of the next one under the throttle."""
    ends = sorted(beat.end for beat in job.heartbeats if beat.end is not None)
    for end, beat in zip(ends, job.heartbeats[job.throttle :], strict=False):
        if beat.start >= end:
            yield beat.start - end


def _follow_ups(jobs: Sequence[Submission]) -> Iterator[float]:
    """Seconds from the end of a submission to the next one: queue and work of the follow-up job."""
    for before, after in pairwise(jobs):
        ends = [beat.end for beat in before.heartbeats]
        if ends and all(end is not None and end < after.submitted for end in ends):
            yield after.submitted - max(end for end in ends if end is not None)


def _spans(folder: StudyFolder) -> tuple[list[float], dict[int, list[tuple[float, float]]]]:
    """Seconds from a job's start to its first trial; and by trial, when workers ran it (start, end).

    The import of the search libraries before the first trial counts to the start of the job.
    """
    starts: list[float] = []
    trials: dict[int, list[tuple[float, float]]] = {}
    for file in folder.jobs.glob("*/spans-*.jsonl"):
        for span in read_spans(file):
            if span.phase == "start":
                starts.append(span.end - span.start)
            elif span.trial is not None:
                trials.setdefault(span.trial, []).append((span.start, span.end))
    return starts, trials


def _seconds(row: TrialRow, at: Mapping[int, Sequence[tuple[float, float]]]) -> float:
    """Seconds that workers ran a trial; without their spans, from claim to end. Below 0: by a clock that was set."""
    spans = at.get(row.number, ()) or [(attempt.start, attempt.end) for attempt in row.attempts]
    if any(end < start for start, end in spans):
        return -1.0
    return sum(end - start for start, end in spans)


def _loading(
    folder: StudyFolder, row: TrialRow, at: Mapping[int, Sequence[tuple[float, float]]]
) -> float | None:
    """Seconds from the last start of a trial to the end of its loading; None where it wrote no phases."""
    start, ended = max(at.get(row.number, ((row.attempts[-1].start, row.attempts[-1].end),)))
    spans = [span for span in read_spans(folder.trial(row.number) / "spans.jsonl") if span.end >= start]
    if not spans:
        return None
    starting = max(0.0, min(span.start for span in spans) - start)
    loading = sum(span.end - span.start for span in spans if span.phase in _LOADING)
    return min(starting + loading, ended - start)


def actual_progress(
    folder: StudyFolder, config: StudyConfig, rows: Sequence[TrialRow], *, since: float | None, now: float
) -> dict[str, Value]:
    """The study's progress so far, with the keys of plan.json. `since`: its submission in Unix seconds, if known.

    GPU-hours are those of jobs from start to end where they are known, else those of trials.
    """
    attempts = [attempt for row in rows for attempt in row.attempts]
    running = any(row.state == "running" for row in rows)
    finished = sum(row.decided for row in rows)
    if not attempts and not running:
        return {"state": "not started", "trials": 0}
    first = min([a.start for a in attempts] + [row.start for row in rows if row.start is not None])
    start = min(first, since) if since is not None else first
    end = now if running else min(now, max(attempt.end for attempt in attempts))
    wall_s = max(end - start, max((a.seconds for a in attempts if a.seconds <= now - start), default=0.0))
    held_s = sum(_held(job, now=now) for job in submissions(folder)) or sum(row.seconds for row in rows)
    job_keys = {attempt.worker.job_key for attempt in attempts}
    seen = measured_times(folder, rows)
    return {
        "state": "running" if running else "done" if finished >= config.budget.trials else "stopped",
        "wall_s": round(wall_s, 1),
        "gpu_hours": round(held_s * gpus_per_job(config) / 3600, 4),
        "job_hours": round(held_s / 3600, 4),
        "trials": finished,
        "trials_per_hour": round(finished / wall_s * 3600, 2) if wall_s > 0 else 0.0,
        "queue_s": round(median(seen.queues), 1) if seen.queues else None,
        "jobs": sum(len(job.heartbeats) for job in submissions(folder)) or len(job_keys),
    }


def _held(job: Submission, *, now: float) -> float:
    """Seconds that its elements ran, up to their end or last heartbeat."""
    return sum(max(0.0, (beat.end or min(beat.last_beat, now)) - beat.start) for beat in job.heartbeats)

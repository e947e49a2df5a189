"""Why a trial ended as it did: its attempts, what the study's rules did, advice, and the lines of its log that matter.

Reads the ends of log files; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpotune.config.schema.execution import Cause
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError
from hpotune.records.trial import LOCAL, Attempt, TrialRow, Worker
from hpotune.reporting.advice import failure_advice
from hpotune.reporting.format import race_text
from hpotune.reporting.log_excerpt import Excerpt, excerpt
from hpotune.reporting.views.job_start import latest_start_failure, text_end
from hpotune.reporting.views.trial_view import TrialState, trial_state
from hpotune.schedule.failures import UNCOUNTED, bad_nodes, failure_causes
from hpotune.workspace.folder import StudyFolder

READ_BYTES = 4_000_000
"""How much of the end of a log is read."""
_OF_THE_JOB = ("killed", "node", "timeout", "preempted")
"""Causes that the job's log explains better than the trial's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptView:
    """An attempt at a trial that has ended."""

    job: str
    host: str
    start: float
    """Unix seconds."""
    end: float
    seconds: float
    gpu_hours: float
    outcome: Literal["finished", "rung", "failed", "paused"]
    """rung: scored at a rung that is not the last. paused: interrupted, to be continued."""
    cause: Cause | None
    message: str
    ended_by_other: bool
    """Whether another process recorded the end, because the worker had ended; False: the worker recorded it itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningAttempt:
    """The attempt that runs now."""

    job: str
    host: str
    start: float | None
    """Unix seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WhyResult:
    """Why a trial is in its state, and what to do about it."""

    study: str
    folder: Path
    trial: int
    kind: Literal["baseline", "trial"]
    state: TrialState
    cause: Cause | None
    """Of the failure, or of the interruption; None where there was none."""
    message: str
    params: Mapping[str, Value]
    attempts: tuple[AttemptView, ...]
    """Oldest first."""
    running: RunningAttempt | None
    policy: tuple[str, ...]
    """What the study's rules did with the trial, a sentence each."""
    advice: str | None
    log: Path | None
    """The log that `lines` are from."""
    rank: int | None
    """The rank that wrote them."""
    lines: tuple[str, ...]
    """The first error of the last attempt, or the log's last lines."""


def why_result(
    folder: StudyFolder,
    config: StudyConfig,
    rows: Sequence[TrialRow],
    number: int,
    *,
    logs_of: Callable[[str], Sequence[Path]] = lambda job: (),
) -> WhyResult:
    """Why trial `number` is in its state. `logs_of`: the logs of a job that are not in the study's folder.

    Raises: StudyFileError where the study has no trial of that number.
    """
    row = row_of(rows, number)
    attempts = _attempts(row)
    cause, message = _cause(row, attempts)
    has_log = row.state in ("failed", "waiting") and bool(attempts)
    file, found = (
        _log(folder, row, attempts[-1], cause=cause, message=message, logs_of=logs_of)
        if has_log
        else (None, None)
    )
    return WhyResult(
        study=config.name,
        folder=folder.path,
        trial=number,
        kind=row.kind,
        state=trial_state(row),
        cause=cause,
        message=message,
        params=dict(row.params),
        attempts=tuple(_attempt_view(attempt) for attempt in attempts),
        running=_running(row),
        policy=(*_policy(config, rows, row, attempts, cause), *_not_started(folder, row, attempts)),
        advice=failure_advice(config, row, attempts, cause) if cause else None,
        log=file,
        rank=found.rank if found else None,
        lines=found.lines if found else (),
    )


def row_of(rows: Sequence[TrialRow], number: int) -> TrialRow:
    row = next((row for row in rows if row.number == number), None)
    if row is not None:
        return row
    known = [row.number for row in rows]
    range_ = f"the study has trials 0 to {max(known)}" if known else "the study has no trials yet"
    raise StudyFileError(f"trial {number}: no such trial; {range_}; `hpotune trials` lists them")


def _attempts(row: TrialRow) -> tuple[Attempt, ...]:
    """Ended attempts; for a failed trial of an old store without attempts, one made from its other fields."""
    if row.attempts or row.state != "failed" or row.worker is None or row.failure is None:
        return row.attempts
    start = row.start if row.start is not None else (row.end or 0.0)
    failure = row.failure
    return (
        Attempt(
            worker=row.worker, start=start, end=row.end or start, outcome="failed", cause=failure.cause,
            message=failure.message,
        ),
    )  # fmt: skip


def _cause(row: TrialRow, attempts: Sequence[Attempt]) -> tuple[Cause | None, str]:
    """Cause and message of the failure, or of the last interruption of a waiting trial."""
    if row.state == "failed":
        return (row.failure.cause, row.failure.message) if row.failure else ("unknown", "")
    if row.state == "waiting" and attempts:
        return attempts[-1].cause, attempts[-1].message
    return None, ""


def _attempt_view(attempt: Attempt) -> AttemptView:
    return AttemptView(
        job=attempt.worker.job,
        host=attempt.worker.host,
        start=attempt.start,
        end=attempt.end,
        seconds=attempt.seconds,
        gpu_hours=attempt.gpu_hours,
        outcome=attempt.outcome,
        cause=attempt.cause,
        message=attempt.message,
        ended_by_other=attempt.ended_by_other,
    )


def _running(row: TrialRow) -> RunningAttempt | None:
    if row.state != "running" or row.worker is None:
        return None
    return RunningAttempt(job=row.worker.job, host=row.worker.host, start=row.start)


def _policy(
    config: StudyConfig,
    rows: Sequence[TrialRow],
    row: TrialRow,
    attempts: Sequence[Attempt],
    cause: Cause | None,
) -> list[str]:
    """What the study's rules did with it, a sentence each."""
    lines = []
    if row.state == "waiting" and not attempts:
        lines.append("no worker has started it yet")
    if row.awaits_promotion:
        lines.append(f"it was scored at rung {row.rung_scores[-1].rung + 1} and waits for promotion")
    if row.race is not None:
        lines.append(f"it was not scored to its end (score.race, docs/racing.md): {race_text(row.race)}")
    elif row.state == "stopped":
        lines.append(
            f"it was pruned at rung {row.rung_scores[-1].rung + 1}: other trials were better there (docs/rungs.md)"
        )
    if cause is not None:
        lines.append(_retries(config, row, attempts, cause))
    if row.state == "failed" and cause is not None:
        lines.append(_counted(config, rows, row, cause))
    bad = bad_nodes(rows)
    for host in dict.fromkeys(attempt.worker.host for attempt in attempts):
        if host in bad:
            lines.append(f"new jobs exclude node {host}: {bad[host].text}")
    lines += [f"trial {other.number} repeats its point" for other in rows if other.retry_of == row.number]
    if row.retry_of is not None:
        lines.append(f"it repeats the point of trial {row.retry_of}, which failed")
    return lines


def _not_started(folder: StudyFolder, row: TrialRow, attempts: Sequence[Attempt]) -> list[str]:
    """Why no worker has started a trial, where the latest job says it."""
    if row.state != "waiting" or attempts:
        return []
    cause = latest_start_failure(folder)
    return [f"the study's latest job failed: {cause}"] if cause else []


def _retries(config: StudyConfig, row: TrialRow, attempts: Sequence[Attempt], cause: Cause) -> str:
    allowed = config.retry.times(cause)
    ended = sum(attempt.cause == cause for attempt in attempts)
    used = ended if row.state == "waiting" else max(0, ended - 1)
    if allowed is None:
        return f"retry.{cause}: {used} retries so far; no limit while each attempt makes progress"
    if row.state == "failed" and allowed:
        return f"retry.{cause}: {min(used, allowed)} of {allowed} retries used, then it failed"
    if row.state == "failed":
        return f"retry.{cause}: 0, so it is not retried"
    return f"retry.{cause}: {used} of {allowed} retries used; it waits for a worker and continues"


def _counted(config: StudyConfig, rows: Sequence[TrialRow], row: TrialRow, cause: Cause) -> str:
    if row.forgiven:
        return "forgiven by `hpotune retry`: not counted against budget.max_failed any more"
    if cause in UNCOUNTED:
        return "not counted against budget.max_failed"
    counted = sum(other not in UNCOUNTED for other in failure_causes(rows))
    return f"counted against budget.max_failed: {counted} failed, {config.budget.max_failed} allowed"


def _log(
    folder: StudyFolder,
    row: TrialRow,
    attempt: Attempt,
    *,
    cause: Cause | None,
    message: str,
    logs_of: Callable[[str], Sequence[Path]],
) -> tuple[Path | None, Excerpt | None]:
    """The log that explains the end of an attempt, and its lines that matter; a log with an error is preferred."""
    own = [(folder.trusted_trial(row.number) / "log.txt", None)]
    files = list(_job_logs(folder, attempt.worker)) or logs_of(attempt.worker.job)
    jobs = [(file, row.number) for file in files]
    first, then = (jobs, own) if attempt.ended_by_other and cause in _OF_THE_JOB else (own, jobs)
    best: tuple[Path | None, Excerpt | None] = (None, None)
    for file, number in (*first, *then):
        text = text_end(file, READ_BYTES)
        text = text if number is None else _of_trial(text, number)
        if not text.strip():
            continue
        found = excerpt(text, cause=cause, message=message)
        if found.error:
            return file, found
        if best[1] is None:
            best = file, found
    return best


def _job_logs(folder: StudyFolder, worker: Worker) -> Iterator[Path]:
    """Logs that its worker may have written to, newest first."""
    if worker.job == LOCAL:
        files = list((folder.jobs / LOCAL).glob("worker-*.log"))
    else:
        files = list((folder.jobs / worker.job.split("_")[0]).glob(f"{worker.job}_*log.out"))
    times = {file: file.stat().st_mtime for file in files if file.is_file()}
    yield from sorted(times, key=times.__getitem__, reverse=True)


def _of_trial(text: str, number: int) -> str:
    """What a worker wrote during its last attempt at the trial; empty where it never ran it."""
    _, marker, last = text.rpartition(f" trial {number} starts:")
    own, next_one, _ = last.partition(" starts: ")
    lines = own.split("\n")[1 : -1 if next_one else None]
    return "\n".join(lines) if marker else ""

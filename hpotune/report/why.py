"""Why a trial ended as it did: its attempts, what was done about it, what to do, and the lines that matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hpotune.config.schema.execution import Cause
from hpotune.config.schema.study_config import Json, StudyConfig
from hpotune.errors import StudyFileError
from hpotune.records.trial import LOCAL, Attempt, TrialRow, Worker
from hpotune.report.advice import advice
from hpotune.report.log_excerpt import Excerpt, excerpt
from hpotune.schedule.failures import UNCOUNTED, bad_nodes, held_against
from hpotune.workspace.folder import StudyFolder

READ_BYTES = 4_000_000
"""Of the end of a log."""
_OF_THE_JOB = ("killed", "node", "timeout", "preempted")
"""Causes of which the job's own log knows more than the trial's."""


def why(folder: StudyFolder, config: StudyConfig, rows: Sequence[TrialRow], number: int) -> dict[str, Json]:
    """A trial's state and cause, its attempts, what was done about it, what to do, and the lines that matter.

    Raises: StudyFileError for a number that is none of the study's.
    """
    row = _of_number(rows, number)
    attempts = _attempts(row)
    cause, message = _cause(row, attempts)
    has_log = row.state in ("failed", "waiting") and bool(attempts)
    file, found = _log(folder, row, attempts[-1], cause=cause, message=message) if has_log else (None, None)
    return {
        "study": config.name,
        "folder": str(folder.path),
        "trial": number,
        "kind": row.kind,
        "state": "paused" if row.paused else "resting" if row.resting else row.state,
        "cause": cause,
        "message": message,
        "params": dict(row.params),
        "attempts": [_told(attempt) for attempt in attempts],
        "running": _running(row),
        "policy": _policy(config, rows, row, attempts, cause),
        "advice": advice(config, row, attempts, cause) if cause else None,
        "log": str(file) if file else None,
        "rank": found.rank if found else None,
        "lines": list(found.lines) if found else [],
    }


def _of_number(rows: Sequence[TrialRow], number: int) -> TrialRow:
    row = next((row for row in rows if row.number == number), None)
    if row is not None:
        return row
    known = [row.number for row in rows]
    there = f"this study's are 0 to {max(known)}" if known else "this study has none yet"
    raise StudyFileError(f"trial {number}: there is no such trial; {there}; `hpotune trials` lists them")


def _attempts(row: TrialRow) -> tuple[Attempt, ...]:
    """Those that have ended; of a failed trial that was recorded without them, the one that can be made out."""
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
    """Of a failed trial the failure's, of a paused one its last attempt's; none where it does well."""
    if row.state == "failed":
        return (row.failure.cause, row.failure.message) if row.failure else ("unknown", "")
    if row.state == "waiting" and attempts:
        return attempts[-1].cause, attempts[-1].message
    return None, ""


def _told(attempt: Attempt) -> dict[str, Json]:
    return {
        "job": attempt.worker.job,
        "host": attempt.worker.host,
        "start": attempt.start,
        "end": attempt.end,
        "seconds": attempt.seconds,
        "gpu_hours": attempt.gpu_hours,
        "outcome": attempt.outcome,
        "cause": attempt.cause,
        "message": attempt.message,
        "swept": attempt.swept,
    }


def _running(row: TrialRow) -> dict[str, Json] | None:
    if row.state != "running" or row.worker is None:
        return None
    return {"job": row.worker.job, "host": row.worker.host, "start": row.start}


def _policy(
    config: StudyConfig,
    rows: Sequence[TrialRow],
    row: TrialRow,
    attempts: Sequence[Attempt],
    cause: Cause | None,
) -> list[str]:
    """What the study's rules made of it, a sentence each."""
    said = []
    if row.state == "waiting" and not attempts:
        said.append("no worker has taken it yet")
    if row.resting:
        said.append(
            f"it reached rung {row.climbed[-1].rung + 1} and rests there: it goes on if it is among the best"
        )
    if row.state == "stopped":
        said.append(
            f"it was stopped at rung {row.climbed[-1].rung + 1}: others were better there (docs/rungs.md)"
        )
    if cause is not None:
        said += [_retries(config, row, attempts, cause)]
    if row.state == "failed" and cause is not None:
        said += [_counted(config, rows, row, cause)]
    bad = bad_nodes(rows)
    for host in dict.fromkeys(attempt.worker.host for attempt in attempts):
        if host in bad:
            said.append(f"node {host} is left out of new jobs: {bad[host]}")
    said += [f"trial {other.number} repeats its point" for other in rows if other.retry_of == row.number]
    if row.retry_of is not None:
        said.append(f"it repeats the point of trial {row.retry_of}, which failed")
    return said


def _retries(config: StudyConfig, row: TrialRow, attempts: Sequence[Attempt], cause: Cause) -> str:
    allowed = config.retry.times(cause)
    ended = sum(attempt.cause == cause for attempt in attempts)
    used = ended if row.state == "waiting" else max(0, ended - 1)
    if allowed is None:
        return f"retry.{cause}: tried again {used} times; no limit while each attempt gets further"
    if row.state == "failed" and allowed:
        return f"retry.{cause}: {min(used, allowed)} of {allowed} used, then it failed"
    if row.state == "failed":
        return f"retry.{cause}: 0, so it is not tried again under its number"
    return f"retry.{cause}: {used} of {allowed} used; it waits for a worker and goes on"


def _counted(config: StudyConfig, rows: Sequence[TrialRow], row: TrialRow, cause: Cause) -> str:
    if row.forgiven:
        return "forgiven by `hpotune retry`: it says nothing against the study any more"
    if cause in UNCOUNTED:
        return "not counted against budget.max_failed"
    counted = sum(other not in UNCOUNTED for other in held_against(rows))
    return f"counted against budget.max_failed: {counted} failed, {config.budget.max_failed} allowed"


def _log(
    folder: StudyFolder, row: TrialRow, attempt: Attempt, *, cause: Cause | None, message: str
) -> tuple[Path | None, Excerpt | None]:
    """The log that knows most of an attempt's end, and its lines that matter: one with an error goes first."""
    own = [(folder.trial(row.number) / "log.txt", None)]
    jobs = [(file, row.number) for file in _job_logs(folder, attempt.worker)]
    first, then = (jobs, own) if attempt.swept and cause in _OF_THE_JOB else (own, jobs)
    best: tuple[Path | None, Excerpt | None] = (None, None)
    for file, number in (*first, *then):
        text = _end_of(file)
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
    """Logs in which its worker may have spoken, the newest first."""
    if worker.job == LOCAL:
        files = list((folder.jobs / LOCAL).glob("worker-*.log"))
    else:
        files = list((folder.jobs / worker.job.split("_")[0]).glob(f"{worker.job}_*log.out"))
    yield from sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)


def _of_trial(text: str, number: int) -> str:
    """What a worker wrote while it had the trial, the last time; nothing where it never had it."""
    _, begun, last = text.rpartition(f" trial {number} starts:")
    own, next_one, _ = last.partition(" starts: ")
    lines = own.split("\n")[1 : -1 if next_one else None]
    return "\n".join(lines) if begun else ""


def _end_of(file: Path) -> str:
    try:
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - READ_BYTES))
            return log.read().decode("utf-8", errors="replace")
    except OSError:
        return ""

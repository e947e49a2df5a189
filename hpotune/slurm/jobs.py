"""What the cluster says of a study's jobs, asked at most every 30 s for those who only look.

The last answer lies in the study's folder (jobs/.queue.json), so that all readers share it. No loop, no submitit.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hpotune.errors import ClusterError, StudyFileError
from hpotune.records.jobs import JobKind, JobRow, job_kind
from hpotune.records.trial import LOCAL, Cause, Failure, TrialRow, Worker
from hpotune.slurm.commands import run_command
from hpotune.slurm.heartbeat_states import mark_jobs, states_from_heartbeats
from hpotune.slurm.job_states import query_states
from hpotune.workspace.folder import StudyFolder, write_atomic
from hpotune.workspace.lock import exclusive_lock

POLL_S = 30.0
"""How old an answer may be for who only looks; HPOTUNE_POLL_S sets another age, 0: always ask."""
LEASE_S = 300.0
_CAUSES: dict[str, Cause] = {
    "TIMEOUT": "timeout",
    "PREEMPTED": "preempted",
    "OUT_OF_MEMORY": "oom",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class JobsAnswer:
    """An answer of the cluster, perhaps somebody else's."""

    rows: tuple[JobRow, ...]
    """UNKNOWN where it was silent."""
    age_s: float = 0.0
    """Seconds since it was asked."""
    silent: str = ""
    """Why it gave no answer."""


def submitted_jobs(folder: StudyFolder) -> list[dict[str, Any]]:
    """Every submission of the study, oldest first."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.jobs.glob("*/job.json")]
    return sorted(({**job, "kind": job_kind(job["kind"])} for job in found), key=lambda job: int(job["id"]))


def query_jobs(
    folder: StudyFolder,
    trials: Sequence[TrialRow],
    *,
    lease_s: float = LEASE_S,
    ended: Sequence[str] = (),
) -> list[JobRow]:
    """Every job element of the study as the cluster tells it now.

    Jobs that hpotune did not submit (an sbatch file written by hand) are known by the trials they run: kind `own`.
    `ended`: jobs that Slurm has told to have ended, by starting what depends on them. `lease_s` counts where none of
    Slurm's commands is here: seconds without a sign of life after which a job is gone.

    Raises: ClusterError when Slurm does not answer.
    """
    with suppress(OSError):
        mark_jobs(folder, ended, "ended")
    kinds, asked = _known_jobs(folder, trials), time.time()
    try:
        found = query_states(
            list(kinds), life=partial(states_from_heartbeats, folder, trials, lease_s=lease_s)
        )
    except ClusterError as error:
        _write_cache(folder, asked, [], silent=str(error))
        raise
    rows = [replace(found[id_], kind=kind) for id_, kind in kinds.items()]
    _write_cache(folder, asked, rows)
    return rows


def cached_jobs(folder: StudyFolder, trials: Sequence[TrialRow], *, lease_s: float = LEASE_S) -> JobsAnswer:
    """The same for those who only look: an answer that is young enough, or a new one; never an error."""
    kinds = _known_jobs(folder, trials)
    if held := _read_cache(folder, kinds):
        return held
    with _one_reader_queries(folder):
        if held := _read_cache(folder, kinds):  # another reader has just asked
            return held
        try:
            return JobsAnswer(rows=tuple(query_jobs(folder, trials, lease_s=lease_s)))
        except ClusterError as error:
            return JobsAnswer(rows=_unknown(kinds), silent=str(error))


def invalidate_cache(folder: StudyFolder) -> None:
    """Drops the last answer: what was submitted or cancelled just now changes it."""
    with suppress(OSError):
        _cache_file(folder).unlink(missing_ok=True)


def poll_s() -> float:
    """The age in seconds up to which an answer serves.

    Raises: StudyFileError where HPOTUNE_POLL_S is no number.
    """
    said = os.environ.get("HPOTUNE_POLL_S", "")
    try:
        return float(said) if said else POLL_S
    except ValueError:
        raise StudyFileError(f"HPOTUNE_POLL_S={said!r}: needs a number of seconds, such as 30") from None


def _cache_file(folder: StudyFolder) -> Path:
    return folder.jobs / ".queue.json"


def _write_cache(folder: StudyFolder, asked: float, rows: Sequence[JobRow], *, silent: str = "") -> None:
    """Keeps the answer; whoever may not write here asks anew each time."""
    if not folder.jobs.is_dir():
        return
    answer = {"asked": asked, "silent": silent, "rows": [asdict(row) for row in rows]}
    with suppress(OSError):
        write_atomic(_cache_file(folder), json.dumps(answer) + "\n")


def _read_cache(folder: StudyFolder, kinds: dict[str, JobKind]) -> JobsAnswer | None:
    """The last answer where it is young and knows every job that hpotune has submitted."""
    try:
        answer = json.loads(_cache_file(folder).read_text(encoding="utf-8"))
        age_s, silent = time.time() - answer["asked"], answer["silent"]
        held = {row["id"]: JobRow(**{**row, "kind": job_kind(row["kind"])}) for row in answer["rows"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not -1.0 <= age_s < poll_s():  # a clock that is ahead would keep an answer for ever
        return None
    if silent:
        return JobsAnswer(rows=_unknown(kinds), age_s=max(0.0, age_s), silent=silent)
    if any(id_ not in held and kind != "own" for id_, kind in kinds.items()):
        return None
    # jobs that somebody wrote by hand are found by their trials, which change more often than this answer
    rows = [held.get(id_) or JobRow(id=id_, state="UNKNOWN", kind=kind) for id_, kind in kinds.items()]
    return JobsAnswer(rows=tuple(rows), age_s=max(0.0, age_s))


@contextmanager
def _one_reader_queries(folder: StudyFolder) -> Iterator[None]:
    """One reader asks, the others wait for its answer; without the right to write here each asks by itself."""
    if not os.access(folder.jobs, os.W_OK):
        yield
        return
    with exclusive_lock(folder.jobs / ".queue.lock"):
        yield


def _unknown(kinds: dict[str, JobKind]) -> tuple[JobRow, ...]:
    return tuple(JobRow(id=id_, state="UNKNOWN", kind=kind) for id_, kind in kinds.items())


def _known_jobs(folder: StudyFolder, trials: Sequence[TrialRow]) -> dict[str, JobKind]:
    """Every job element that the study knows of, by id."""
    kinds: dict[str, JobKind] = {
        f"{job['id']}_{index}": job["kind"] for job in submitted_jobs(folder) for index in range(job["count"])
    }
    running = [row.worker.job for row in trials if row.state == "running" and row.worker]
    return kinds | {id_: "own" for id_ in running if id_ != LOCAL and id_ not in kinds}


def failure_by_job_state(rows: Sequence[JobRow]) -> Callable[[Worker], Failure | None]:
    """Tells the death of workers whose job has ended; says nothing of jobs that the cluster does not know."""
    by_id = {row.id: row for row in rows}

    def dead(worker: Worker) -> Failure | None:
        row = by_id.get(worker.job)
        if row is None or row.active or row.state == "UNKNOWN":
            return None
        said = (
            (f"gave {row.reason}" if row.reason else "has left the queue")
            if row.state == "GONE"
            else f"ended as {row.state} (exit {row.exit_code or 'unknown'})"
        )
        return Failure(
            cause=_CAUSES.get(row.state, "killed"),
            message=f"its job {row.id} {said} on {worker.host}",
            cancelled=row.state == "CANCELLED",
        )

    return dead


def cancel_jobs(folder: StudyFolder, ids: Sequence[str]) -> None:
    """Ends waiting and running jobs.

    Raises: ClusterError when Slurm does not answer.
    """
    if ids:
        run_command(["scancel", *ids])
        with suppress(OSError):
            mark_jobs(folder, ids, "cancelled")
        invalidate_cache(folder)

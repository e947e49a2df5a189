"""A study's jobs: what was submitted, and what Slurm reports of them.

Readers share one answer of Slurm for 30 s; it is kept in the study's folder (jobs/.queue.json). Never asks in a loop,
never submits.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from hpotune.config.json_file import DamagedFileError, decoding, read_object
from hpotune.errors import ClusterError, StoreError, StudyFileError
from hpotune.records.jobs import JobKind, JobRow, job_kind
from hpotune.records.trial import LOCAL, Cause, Failure, TrialRow, Worker
from hpotune.slurm.commands import run_command
from hpotune.slurm.heartbeat_states import mark_jobs, states_from_heartbeats
from hpotune.slurm.hyperqueue.task_states import cancel_tasks, query_task_states
from hpotune.slurm.job_arrays import array_job_id
from hpotune.slurm.job_states import query_states
from hpotune.slurm.partitions import host_names, nodes_of
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import exclusive_lock

POLL_S = 30.0
"""Age in seconds up to which readers share an answer; HPOTUNE_POLL_S sets another one, 0: always ask."""
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
    """What Slurm reported of a study's jobs, perhaps to another process."""

    rows: tuple[JobRow, ...]
    """State UNKNOWN where Slurm gave no answer."""
    age_s: float = 0.0
    """Seconds since the question."""
    error: str = ""
    """Why there is no answer; empty where there is one."""
    missing: tuple[str, ...] = ()
    """Facts that the answer does not hold, a sentence each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmittedJob:
    """One job array as job.json records it."""

    id: str
    kind: JobKind
    count: int
    """Elements."""
    throttle: int
    """Elements that may run at a time."""
    hq_name: str = ""
    """Its name on the HyperQueue server; empty for a job of Slurm."""


def submitted_jobs(folder: StudyFolder) -> list[SubmittedJob]:
    """Every job array that hpotune submitted for the study, on Slurm and HyperQueue, oldest first.

    Raises: DamagedFileError for a job.json that cannot be read.
    """
    jobs = [_recorded_job(path) for path in folder.jobs.glob("*/job.json")]
    return sorted(jobs, key=lambda job: int(job.id))


def slurm_job_ids(folder: StudyFolder) -> list[str]:
    """The ids of those that were submitted to Slurm.

    Raises: DamagedFileError as `submitted_jobs`.
    """
    return [job.id for job in submitted_jobs(folder) if not job.hq_name]


def _recorded_job(file: Path) -> SubmittedJob:
    """The job that a job.json records.

    Raises: DamagedFileError: a job that is forgotten would be submitted again.
    """
    id_ = file.parent.name
    ended = f"restore it, or remove {file.parent} once `squeue -j {id_}` no longer lists the job"
    with decoding(file, next_step=ended):
        job = read_object(file, next_step=ended)
        if str(int(job["id"])) != id_:
            raise ValueError(f"it is of job {job['id']!r}")
        return SubmittedJob(
            id=id_,
            kind=job_kind(job["kind"]),
            count=int(job["count"]),
            throttle=int(job.get("throttle", job["count"])),
            hq_name=str(job.get("hq_name", "")),
        )


def query_jobs(
    folder: StudyFolder,
    trials: Sequence[TrialRow],
    *,
    lease_s: float = LEASE_S,
    ended: Sequence[str] = (),
) -> list[JobRow]:
    """Every job element of the study as Slurm reports it now; keeps the answer for `cached_jobs`.

    Jobs that hpotune did not submit (a hand-written sbatch file) are known by the trials that they run: kind `own`.
    `ended`: jobs that have ended by Slurm's word, since it started a job that depends on them. `lease_s` is used where
    none of Slurm's commands is installed: seconds without a heartbeat after which a job is gone.

    Raises: ClusterError when Slurm does not answer.
    """
    with suppress(OSError):
        mark_jobs(folder, ended, "ended")
    return list(_ask_slurm(folder, trials, lease_s=lease_s).rows)


def _ask_slurm(folder: StudyFolder, trials: Sequence[TrialRow], *, lease_s: float) -> JobsAnswer:
    """Slurm's answer now, kept in the study's folder. Raises: ClusterError when Slurm does not answer."""
    kinds, asked_at = _known_jobs(folder, trials), time.time()
    names = {job.id: job.hq_name for job in submitted_jobs(folder) if job.hq_name}
    tasks = [id_ for id_ in kinds if array_job_id(id_) in names]
    from_heartbeats = partial(states_from_heartbeats, folder, trials, lease_s=lease_s)
    missing: list[str] = []
    try:
        found = query_task_states(tasks, names, from_heartbeats=from_heartbeats, missing=missing)
        found |= query_states(
            [id_ for id_ in kinds if id_ not in found], from_heartbeats=from_heartbeats, missing=missing
        )
    except ClusterError as error:
        _write_cache(folder, asked_at, JobsAnswer(rows=(), error=str(error)))
        raise
    rows = tuple(replace(found[id_], kind=kind) for id_, kind in kinds.items())
    answer = JobsAnswer(rows=rows, missing=tuple(missing))
    _write_cache(folder, asked_at, answer)
    return answer


def cached_jobs(folder: StudyFolder, trials: Sequence[TrialRow], *, lease_s: float = LEASE_S) -> JobsAnswer:
    """The same for readers: a recent answer, or a new one. Raises nothing: see JobsAnswer.error."""
    kinds = _known_jobs(folder, trials)
    if cached := _read_cache(folder, kinds):
        return cached
    with _one_reader_queries(folder):
        if cached := _read_cache(folder, kinds):  # another reader has just asked
            return cached
        try:
            return _ask_slurm(folder, trials, lease_s=lease_s)
        except ClusterError as error:
            return JobsAnswer(rows=_unknown(kinds), error=str(error))


def invalidate_cache(folder: StudyFolder) -> None:
    """Delete the last answer after a submission or a cancellation."""
    with suppress(OSError):
        _cache_file(folder).unlink(missing_ok=True)


def poll_s() -> float:
    """The age in seconds up to which readers share an answer.

    Raises: StudyFileError where HPOTUNE_POLL_S is not a number.
    """
    text = os.environ.get("HPOTUNE_POLL_S", "")
    try:
        return float(text) if text else POLL_S
    except ValueError:
        raise StudyFileError(f"HPOTUNE_POLL_S={text!r}: needs a number of seconds, such as 30") from None


def _cache_file(folder: StudyFolder) -> Path:
    return folder.jobs / ".queue.json"


def _write_cache(folder: StudyFolder, asked_at: float, found: JobsAnswer) -> None:
    """Keep the answer; a reader without write permission asks each time."""
    if not folder.jobs.is_dir():
        return
    rows = [asdict(row) for row in found.rows]
    answer = {"asked": asked_at, "silent": found.error, "rows": rows, "missing": found.missing}
    with suppress(OSError):
        write_atomic(_cache_file(folder), json.dumps(answer) + "\n")


def _read_cache(folder: StudyFolder, kinds: dict[str, JobKind]) -> JobsAnswer | None:
    """The last answer, if it is recent and holds every job that hpotune has submitted."""
    try:
        with decoding(_cache_file(folder), next_step=""):
            answer = read_object(_cache_file(folder), next_step="")
            age_s, error = time.time() - float(answer["asked"]), str(answer["silent"])
            missing = tuple(answer.get("missing", ()))
            cached = {row["id"]: JobRow(**{**row, "kind": job_kind(row["kind"])}) for row in answer["rows"]}
    except DamagedFileError:
        return None
    if not -1.0 <= age_s < poll_s():  # a clock that is ahead would keep an answer for ever
        return None
    if error:
        return JobsAnswer(rows=_unknown(kinds), age_s=max(0.0, age_s), error=error)
    if any(id_ not in cached and kind != "own" for id_, kind in kinds.items()):
        return None
    # hand-written jobs are found by their trials, which change more often than this answer
    rows = [cached.get(id_) or JobRow(id=id_, state="UNKNOWN", kind=kind) for id_, kind in kinds.items()]
    return JobsAnswer(rows=tuple(rows), age_s=max(0.0, age_s), missing=missing)


@contextmanager
def _one_reader_queries(folder: StudyFolder) -> Iterator[None]:
    """One reader asks Slurm and the others wait for its answer; a reader that cannot lock asks by itself."""
    with ExitStack() as stack:
        if os.access(folder.jobs, os.W_OK):
            with suppress(StoreError):
                stack.enter_context(exclusive_lock(folder.jobs / ".queue.lock"))
        yield


def _unknown(kinds: dict[str, JobKind]) -> tuple[JobRow, ...]:
    return tuple(JobRow(id=id_, state="UNKNOWN", kind=kind) for id_, kind in kinds.items())


def _known_jobs(folder: StudyFolder, trials: Sequence[TrialRow]) -> dict[str, JobKind]:
    """The kind of every job element of the study, by id."""
    kinds: dict[str, JobKind] = {
        f"{job.id}_{index}": job.kind for job in submitted_jobs(folder) for index in range(job.count)
    }
    running = [row.worker.job for row in trials if row.state == "running" and row.worker]
    return kinds | {id_: "own" for id_ in running if id_ != LOCAL and id_ not in kinds}


def failure_by_job_state(rows: Sequence[JobRow]) -> Callable[[Worker], Failure | None]:
    """A function that returns the failure of a worker whose job has ended; None for active and unknown jobs."""
    by_id = {row.id: row for row in rows}

    def failure(worker: Worker) -> Failure | None:
        row = by_id.get(worker.job)
        if row is None or row.active or row.state == "UNKNOWN":
            return None
        end = (
            (f"gave {row.reason}" if row.reason else "is gone from the queue")
            if row.state == "GONE"
            else f"ended as {row.state} (exit {row.exit_code or 'unknown'})"
        )
        return Failure(
            cause=_CAUSES.get(row.state, "killed"),
            message=f"its job {row.id} {end} on {worker.host}",
            cancelled=row.state == "CANCELLED",
        )

    return failure


def cancel_jobs(folder: StudyFolder, ids: Sequence[str]) -> None:
    """Cancel waiting and running jobs.

    Raises: ClusterError when Slurm or HyperQueue does not answer.
    """
    names = {job.id: job.hq_name for job in submitted_jobs(folder) if job.hq_name}
    tasks = [id_ for id_ in ids if array_job_id(id_) in names]
    if ids:
        if jobs := [id_ for id_ in ids if id_ not in tasks]:
            run_command(["scancel", *jobs])
        cancel_tasks([names[array_job_id(id_)] for id_ in tasks])
        with suppress(OSError):
            mark_jobs(folder, ids, "cancelled")
        invalidate_cache(folder)


def cancel_held(folder: StudyFolder, ids: Sequence[str]) -> None:
    """Cancel jobs that Slurm holds, unless they have been released meanwhile; they do not stand for the study.

    Raises: ClusterError when Slurm does not answer; OSError when the marks cannot be written.
    """
    mark_jobs(folder, ids, "replaced")  # first: else a crash would leave them as cancelled by a user
    run_command(["scancel", "--state=PENDING", *ids])
    invalidate_cache(folder)


def exclude_node(job: str, host: str, *, partition: str | None) -> bool:
    """Ask Slurm to start no further element of this job's array on a node; whether Slurm accepted that.

    Not where it is the last node of the partition: the elements would wait for ever.
    A broken node is always free: without this it would take one waiting element after the other.
    """
    array = job.split("_")[0]
    try:
        shown = re.search(r"ExcNodeList=(\S+)", run_command(["scontrol", "show", "job", "-o", array]))
        before = [] if shown is None or shown[1] == "(null)" else [shown[1]]  # an update replaces the list
        nodes = nodes_of(partition)
        if nodes and not nodes - {host} - host_names(",".join(before)):
            return False
        run_command(["scontrol", "update", f"JobId={array}", f"ExcNodeList={','.join([*before, host])}"])
    except ClusterError:  # scontrol is not installed, or no element waits any more
        return False
    return True

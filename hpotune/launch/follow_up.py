"""What a follow-up job does: requeue lost trials, submit the jobs that are missing, submit the next follow-up.

Running it twice submits nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import ClusterError
from hpotune.launch.cancellation import cancellation, cancelled_jobs, mark_cancelled, settled_jobs
from hpotune.launch.held_jobs import replace_held
from hpotune.launch.next_follow_up import submit_next
from hpotune.launch.rehearsal_job import required_rehearsal
from hpotune.launch.stale_workers import stale_failure
from hpotune.records.jobs import JobRow, JobSpec
from hpotune.schedule.next_jobs import next_jobs
from hpotune.slurm.cluster_limits import SubmitLimitReached
from hpotune.slurm.commands import ControllerUnreachable, NoAnswer
from hpotune.slurm.heartbeat_states import is_replaced
from hpotune.slurm.job_arrays import max_array_size, split_array
from hpotune.slurm.partitions import host_names, nodes_of
from hpotune.slurm.study_jobs import query_jobs, submitted_jobs
from hpotune.slurm.submission import adopt_lost
from hpotune.slurm.submit import changed_settings, submit, submit_within_limits
from hpotune.storage import TrialQueue, output_reader, requeue_lock
from hpotune.workspace.atomic_files import wait_for_disk_space
from hpotune.workspace.code_snapshot import find_snapshot
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.heartbeat import read_heartbeat
from hpotune.workspace.lock import exclusive_lock

PATIENCE_S = 120
"""Seconds for which a follow-up job repeats its calls while Slurm does not answer; its job may last ten minutes."""
PAUSE_S = 30
DISK_PAUSE_S = 6
UNSIGNED_S = 5
"""Seconds after which a running trial without a worker's name is lost, where no job of the study is active."""
MAX_FRUITLESS = 2
"""Jobs in a row that took no trial: the next one would not either."""
_ENDED_BY_CLUSTER = ("CANCELLED", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "TIMEOUT", "GONE")
_TRANSIENT = (ControllerUnreachable,)
_TRANSIENT_QUESTION = (ControllerUnreachable, NoAnswer)
"""For questions only: a submission without an answer may have been accepted, and would be repeated."""
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class FollowUpResult:
    """What a follow-up did."""

    submitted: tuple[str, ...] = ()
    """Job ids."""
    requeued: tuple[int, ...] = ()
    """Numbers of lost trials that were requeued or failed."""
    warning: str = ""
    """What did not succeed, or why nothing was submitted although trials are missing."""


def follow_up(
    folder: StudyFolder,
    store: TrialQueue,
    config: StudyConfig,
    *,
    now: datetime,
    unattended: bool = False,
    ended: Sequence[str] = (),
) -> FollowUpResult:
    """Requeue lost trials and submit the missing jobs. `unattended`: called by a job, not by a user.

    `ended`: jobs, or elements, that are known to have ended.

    Raises: ClusterError when Slurm does not answer or refuses the first job; unattended also when the last jobs took no
        trial at all, since the next ones would not either.
    """
    patience_s = PATIENCE_S if unattended else 0
    lease_s = config.execution.lease_s
    wait_for_disk_space(folder.path, patience_s=patience_s, pause_s=DISK_PAUSE_S)
    with exclusive_lock(folder.jobs / ".lock"):  # two follow-ups at once must not both submit
        find_lost = partial(adopt_lost, folder.jobs)
        _retry_while_away(find_lost, seconds=patience_s, transient=_TRANSIENT_QUESTION)
        ask = partial(query_jobs, folder, store.rows(), lease_s=lease_s, ended=ended)
        ask_patiently = partial(_retry_while_away, ask, seconds=patience_s, transient=_TRANSIENT_QUESTION)
        found = settled_jobs(ask_patiently) if unattended else ask_patiently()
        found, replaced = replace_held(folder, found, ask=ask_patiently)
        rows = [row for row in found if row.id not in ended and not _has_signed_off(folder, row)]
        unsigned_s = None if any(row.active and row.kind != "follow-up" for row in rows) else UNSIGNED_S
        failure = stale_failure(rows, lease_s=lease_s)
        requeued: tuple[int, ...] = ()
        with requeue_lock(folder) as held:
            if held:  # else another process requeues now
                found_lost = store.requeue_stale(
                    failure, read_output=output_reader(folder), unowned_s=unsigned_s
                )
                requeued = tuple(found_lost)
        store.append_waiting()
        if not unattended:
            folder.cancelled.unlink(missing_ok=True)
        due = next_jobs(config, store.rows(), rows, now=now, nodes_since=folder.nodes_tried_again)
        if unattended and (stopped := _stopped_by_user(folder, found, due=bool(due))):
            return FollowUpResult(requeued=requeued, warning=stopped if due else "")
        submit_small = partial(_submit_small, folder, config, patience_s=patience_s)
        first = None
        if due:
            first = required_rehearsal(folder, config, rows, unattended=unattended, submit=submit_small)
            due = [replace(spec, requires=first) for spec in due]
        broken = _all_nodes(config, due)
        if broken and unattended:
            raise ClusterError(
                f"{broken}, so no further job was submitted; fix the cause, then `hpotune resume {folder.path}`, "
                "which tries them all again"
            )
        if broken:
            folder.try_nodes_again()
            due = [replace(spec, exclude=()) for spec in due]
            broken += "; since a user asked for it, all are tried again"
        if due and unattended:
            _refuse_to_repeat(folder, rows)
        # a job that could not be recorded would be submitted twice
        wait_for_disk_space(folder.path, patience_s=patience_s, pause_s=DISK_PAUSE_S)
        working = any(row.active and row.kind == "worker" for row in rows)
        ids, elements, warnings = _submit_workers(folder, config, due, working=working, patience_s=patience_s)
        next_id, warning = submit_next(folder, config, rows, elements, submit=submit_small)
        ids, warning = (
            [*ids, *next_id],
            "; ".join(filter(None, [replaced, broken, changed_settings(folder, ids), *warnings, warning])),
        )
    new = [first] if first is not None and all(row.id != first for row in rows) else []
    return FollowUpResult(submitted=(*new, *ids), requeued=requeued, warning=warning)


def _all_nodes(config: StudyConfig, due: Sequence[JobSpec]) -> str:
    """That every node of the partition is excluded as broken: sbatch would refuse the job; empty otherwise."""
    excluded = {host for spec in due for host in spec.exclude}
    if not excluded or config.execution.place == "hyperqueue":
        return ""
    nodes = nodes_of(config.resources.partition)
    if not nodes or nodes - excluded - host_names(config.resources.exclude or ""):
        return ""
    return f"trials fail because of every node that the study may use ({', '.join(sorted(excluded & nodes))})"


def _has_signed_off(folder: StudyFolder, row: JobRow) -> bool:
    """Whether a worker has ended although Slurm still reports its job: workers that end together are not waited for."""
    clearing = row.kind == "worker" and row.state in ("RUNNING", "COMPLETING")
    heartbeat = read_heartbeat(folder, row.id) if clearing else None
    return heartbeat is not None and heartbeat.end is not None


def _submit_workers(
    folder: StudyFolder,
    config: StudyConfig,
    due: Sequence[JobSpec],
    *,
    working: bool,
    patience_s: float,
) -> tuple[list[str], list[str], list[str]]:
    """Submit the jobs, with room for the follow-up; returns their ids, their elements, and what was refused.

    `working`: whether other workers run or wait. Then, and after the first array, the follow-up comes before workers.

    Raises: ClusterError where the first job is refused and no other worker is left to continue the study.
    """
    follows = config.resources.follow_up is True
    on_slurm = config.execution.place == "slurm"
    at_most = max_array_size() if on_slurm and any(spec.count > 1 for spec in due) else None
    newest = find_snapshot(folder)
    code = newest.hash if newest else None
    ids: list[str] = []
    elements: list[str] = []
    limit = ""
    for spec in [part for whole in due for part in split_array(whole, at_most=at_most, spare=int(follows))]:
        last_resort = not ids and not working
        attempt = partial(submit_within_limits, folder, config, spec, code=code, last_resort=last_resort)
        try:
            result = _retry_while_away(attempt, seconds=patience_s)
        except ClusterError as error:
            if last_resort or not (ids or isinstance(error, SubmitLimitReached)):
                raise
            if not isinstance(error, SubmitLimitReached):
                return ids, elements, [f"submitted {', '.join(ids)}, but no further job: {error}"]
            limit = error.limit
            break
        ids.append(result.id)
        elements += [f"{result.id}_{index}" for index in range(result.count)]
        if limit := result.limit:
            break
    return (
        ids,
        elements,
        [_limit_note(len(elements), of=sum(one.count for one in due), limit=limit)] if limit else [],
    )


def _limit_note(count: int, *, of: int, limit: str) -> str:
    return (
        f"{count} of {of} jobs were submitted: a limit allows no more at a time ({limit}); the others follow"
    )


def _submit_small(folder: StudyFolder, config: StudyConfig, spec: JobSpec, *, patience_s: float) -> str:
    """Submit a job of one element; returns its id."""
    return _retry_while_away(partial(submit, folder, config, spec), seconds=patience_s)


def _retry_while_away(
    call: Callable[[], _T], *, seconds: float, transient: tuple[type[ClusterError], ...] = _TRANSIENT
) -> _T:
    """The call's answer; repeats the call for so many seconds while it fails with a transient error."""
    until = time.monotonic() + seconds
    while True:
        try:
            return call()
        except transient:
            if time.monotonic() + PAUSE_S > until:
                raise
        time.sleep(PAUSE_S)


def _stopped_by_user(folder: StudyFolder, rows: Sequence[JobRow], *, due: bool) -> str:
    """Why missing trials are not submitted (the user cancelled, which is recorded); empty otherwise."""
    resume = f"`hpotune resume {folder.path}` continues it"
    if (how := cancellation(folder)) is not None:
        return f"the study was cancelled ({how}), so no further job was submitted; {resume}"
    if due and (jobs := cancelled_jobs(folder, rows)):
        mark_cancelled(folder, f"scancel of {jobs}, all that was left")
        return f"job {jobs} was cancelled and no other was left, so no further one was submitted; {resume}"
    return ""


def _refuse_to_repeat(folder: StudyFolder, rows: Sequence[JobRow]) -> None:
    """Raises: ClusterError if the last MAX_FRUITLESS jobs ended by themselves and claimed no trial."""
    active = {row.id.split("_")[0] for row in rows if row.active}
    by_cluster = {
        row.id.split("_")[0]
        for row in rows
        if row.state in _ENDED_BY_CLUSTER and not is_replaced(folder, row.id)
    }
    ended = [job.id for job in submitted_jobs(folder) if job.kind == "worker" and job.id not in active]
    last = ended[-MAX_FRUITLESS:]
    if len(last) == MAX_FRUITLESS and not any(
        folder.took_trial(id_).exists() or id_ in by_cluster for id_ in last
    ):
        raise ClusterError(
            f"jobs {' and '.join(last)} ended without claiming a trial, so no further job was submitted; see the log "
            f"in {folder.jobs / last[-1]}, fix the cause, then `hpotune resume {folder.path}`"
        )


def first_jobs(config: StudyConfig, *, now: datetime) -> list[JobSpec]:
    """What a study without trials and jobs would submit."""
    return next_jobs(config, [], [], now=now)

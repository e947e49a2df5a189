"""What a follow-up job does: requeue lost trials, submit the jobs that are missing, submit the next follow-up.

Running it twice submits nothing twice.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import ClusterError
from hpotune.launch.rehearsal_job import required_rehearsal
from hpotune.launch.stale_workers import stale_failure
from hpotune.records.jobs import JobRow, JobSpec
from hpotune.schedule.next_jobs import next_jobs
from hpotune.slurm.commands import ControllerUnreachable, NoAnswer
from hpotune.slurm.job_arrays import max_array_size, split_array
from hpotune.slurm.study_jobs import query_jobs, submitted_jobs
from hpotune.slurm.submit import submit, submit_within_limits
from hpotune.storage import TrialQueue, output_reader
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
        ask = partial(query_jobs, folder, store.rows(), lease_s=lease_s, ended=ended)
        found = _retry_while_away(ask, seconds=patience_s, transient=_TRANSIENT_QUESTION)
        rows = [row for row in found if row.id not in ended and not _has_signed_off(folder, row)]
        unsigned_s = None if any(row.active and row.kind != "follow-up" for row in rows) else UNSIGNED_S
        failure = stale_failure(rows, lease_s=lease_s)
        requeued = tuple(
            store.requeue_stale(failure, read_output=output_reader(folder), unowned_s=unsigned_s)
        )
        store.append_waiting()
        if not unattended:
            folder.cancelled.unlink(missing_ok=True)
        due = next_jobs(config, store.rows(), rows, now=now)
        first = None
        if due and not folder.cancelled.exists():
            submit_small = partial(_submit_small, folder, config, patience_s=patience_s)
            first = required_rehearsal(folder, config, rows, unattended=unattended, submit=submit_small)
            due = [replace(spec, requires=first) for spec in due]
        if unattended and (stopped := _stopped_by_user(folder, rows)):
            return FollowUpResult(requeued=requeued, warning=stopped if due else "")
        if due and unattended:
            _refuse_to_repeat(folder, rows)
        submit_next = partial(_submit_follow_up, folder, config, rows, patience_s=patience_s)
        # a job that could not be recorded would be submitted twice
        wait_for_disk_space(folder.path, patience_s=patience_s, pause_s=DISK_PAUSE_S)
        ids, warning = _submit_all(folder, config, due, submit_next=submit_next, patience_s=patience_s)
    new = [first] if first is not None and all(row.id != first for row in rows) else []
    return FollowUpResult(submitted=(*new, *ids), requeued=requeued, warning=warning)


def _has_signed_off(folder: StudyFolder, row: JobRow) -> bool:
    """Whether a worker has ended although Slurm still reports its job: workers that end together are not waited for."""
    clearing = row.kind == "worker" and row.state in ("RUNNING", "COMPLETING")
    heartbeat = read_heartbeat(folder, row.id) if clearing else None
    return heartbeat is not None and heartbeat.end is not None


def _submit_all(
    folder: StudyFolder,
    config: StudyConfig,
    due: Sequence[JobSpec],
    *,
    submit_next: Callable[[Sequence[str]], list[str]],
    patience_s: float,
) -> tuple[list[str], str]:
    """Submit the jobs; returns their ids, and a warning about those that were refused after others were accepted."""
    at_most = max_array_size() if any(spec.count > 1 for spec in due) else None
    newest = find_snapshot(folder)
    code = newest.hash if newest else None
    ids: list[str] = []
    elements: list[str] = []
    warnings: list[str] = []
    for spec in [part for whole in due for part in split_array(whole, at_most=at_most)]:
        try:
            result = _retry_while_away(
                partial(submit_within_limits, folder, config, spec, code=code), seconds=patience_s
            )
        except ClusterError as error:
            if not ids:
                raise
            warnings.append(f"submitted {', '.join(ids)}, but no further job: {error}")
            break
        ids.append(result.id)
        elements += [f"{result.id}_{index}" for index in range(result.count)]
        if result.note:
            warnings.append(result.note)
            break
    try:
        ids += submit_next(elements)
    except ClusterError as error:
        warnings.append(f"submitted {', '.join(ids) or 'nothing'}, but no follow-up: {error}; {_BY_HAND}")
    return ids, "; ".join(warnings)


def _submit_follow_up(
    folder: StudyFolder, config: StudyConfig, rows: Sequence[JobRow], new: Sequence[str], *, patience_s: float
) -> list[str]:
    """Submit the next follow-up, dependent on these elements and on active ones, unless one waits for them already."""
    own_job = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID")
    waiting = any(_will_still_run(row) for row in rows if row.id.split("_")[0] != own_job)
    after = [row.id for row in rows if row.active and row.kind == "worker"] + list(new)
    if config.resources.follow_up is not True or not after or (waiting and not new):
        return []
    # Without a command that asks the controller, ends are known only because Slurm starts the dependent job.
    can_ask = any(shutil.which(command) for command in ("squeue", "scontrol"))
    any_of = config.execution.trials_per_job == "auto" and can_ask
    jobs = after if any_of else list(dict.fromkeys(id_.split("_")[0] for id_ in after))
    spec = JobSpec(kind="follow-up", count=1, throttle=1, after=tuple(jobs), any_of=any_of)
    return [_submit_small(folder, config, spec, patience_s=patience_s)]


def _submit_small(folder: StudyFolder, config: StudyConfig, spec: JobSpec, *, patience_s: float) -> str:
    """Submit a job of one element; returns its id."""
    return _retry_while_away(partial(submit, folder, config, spec), seconds=patience_s)


def _will_still_run(row: JobRow) -> bool:
    """Whether a pending follow-up job will run after this moment.

    A running one may have looked already, and may rely on this one. One that was requeued with its node is held for
    minutes (BeginTime), or until an administrator releases it.
    """
    reason = row.reason.lower()
    held = reason in ("begintime", "dependencyneversatisfied") or "held" in reason or "hold" in reason
    return row.kind == "follow-up" and row.state == "PENDING" and not held


_BY_HAND = "lost trials will not be replaced automatically: run `hpotune resume` when the jobs have ended"


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


def _stopped_by_user(folder: StudyFolder, rows: Sequence[JobRow]) -> str:
    """Why missing trials are not submitted (the user cancelled); empty otherwise."""
    resume = f"`hpotune resume {folder.path}` continues it"
    if folder.cancelled.exists():
        return f"the study was cancelled, so no further job was submitted; {resume}"
    if any(row.active and row.kind == "worker" for row in rows):
        return ""
    last = next((job.id for job in reversed(submitted_jobs(folder)) if job.kind == "worker"), None)
    unfinished = {row.state for row in rows if row.id.split("_")[0] == last and row.state != "COMPLETED"}
    # sacct has no line for elements that were cancelled before they started
    if "CANCELLED" in unfinished and unfinished <= {"CANCELLED", "GONE"}:
        return f"job {last} was cancelled, so no further one was submitted; {resume}"
    return ""


def _refuse_to_repeat(folder: StudyFolder, rows: Sequence[JobRow]) -> None:
    """Raises: ClusterError if the last MAX_FRUITLESS jobs ended by themselves and claimed no trial."""
    active = {row.id.split("_")[0] for row in rows if row.active}
    by_cluster = {row.id.split("_")[0] for row in rows if row.state in _ENDED_BY_CLUSTER}
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

"""One step of a study on Slurm: tell dead trials, submit what is missing, leave a step behind.

Running it twice changes nothing more.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TypeVar

from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import ClusterError
from hpotune.launch.stale_workers import stale_failure
from hpotune.records.jobs import JobRow, JobSpec
from hpotune.schedule.next_jobs import next_jobs
from hpotune.slurm.jobs import query_jobs, submitted_jobs
from hpotune.slurm.submit import max_array_size, split_array, submit, submit_within_limits
from hpotune.storage import Store, results_in
from hpotune.workspace.code_snapshot import find_snapshot
from hpotune.workspace.folder import StudyFolder, wait_for_disk_space
from hpotune.workspace.heartbeat import read_heartbeat
from hpotune.workspace.lock import exclusive_lock

PATIENCE_S = 120
"""How long a follow-up job asks again when Slurm does not answer; its job may last ten minutes."""
PAUSE_S = 30
ROOM_PAUSE_S = 6
ALONE_S = 5
"""A trial that runs for so long and names no worker belongs to nobody, where no job of the study lives."""
_AWAY = ("contact", "connect", "fetch config")
_SLOW = (*_AWAY, "no answer", "timed out")
"""For questions only: a job whose submission timed out may have been taken, and would be submitted twice."""
MAX_FRUITLESS = 2
"""Jobs in a row that took no trial: the next would not either."""
_TAKEN = ("CANCELLED", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "TIMEOUT", "GONE")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class FollowUpResult:
    """What one step did."""

    submitted: tuple[str, ...] = ()
    """Job ids."""
    swept: tuple[int, ...] = ()
    """Trials told dead."""
    warning: str = ""
    """What of it did not succeed, or why nothing was submitted though trials are missing."""


def follow_up(
    folder: StudyFolder,
    store: Store,
    config: StudyConfig,
    *,
    now: datetime,
    alone_at_work: bool = False,
    ended: Sequence[str] = (),
) -> FollowUpResult:
    """Does what is due and returns it. `alone_at_work`: no user looks on (the follow-up job, the last worker).

    `ended`: jobs, or elements, that are known to have ended.

    Raises: ClusterError when Slurm does not answer or refuses the first job, and where no user looks on when the jobs
    before took no trial at all: the next ones would do no better, and so on for ever.
    """
    patience_s = PATIENCE_S if alone_at_work else 0
    lease_s = config.execution.lease_s
    wait_for_disk_space(folder, patience_s=patience_s, pause_s=ROOM_PAUSE_S)
    with exclusive_lock(folder.jobs / ".lock"):  # so that two steps at once do not both submit
        ask = partial(query_jobs, folder, store.rows(), lease_s=lease_s, ended=ended)
        found = _retry_while_away(ask, seconds=patience_s, away=_SLOW)
        rows = [row for row in found if row.id not in ended and not _has_signed_off(folder, row)]
        unowned_s = None if any(row.active and row.kind != "follow-up" for row in rows) else ALONE_S
        dead = stale_failure(rows, lease_s=lease_s)
        swept = tuple(store.sweep(dead, left=results_in(folder), unowned_s=unowned_s))
        store.fill()
        if not alone_at_work:
            folder.cancelled.unlink(missing_ok=True)
        due = next_jobs(config, store.rows(), rows, now=now)
        if alone_at_work and (stopped := _stopped_by_user(folder, rows)):
            return FollowUpResult(swept=swept, warning=stopped if due else "")
        if due and alone_at_work:
            _refuse_to_repeat(folder, rows)
        leave = partial(_submit_follow_up, folder, config, rows, patience_s=patience_s)
        # a job that could not be recorded would be submitted twice
        wait_for_disk_space(folder, patience_s=patience_s, pause_s=ROOM_PAUSE_S)
        ids, warning = _submit_all(folder, config, due, leave=leave, patience_s=patience_s)
    return FollowUpResult(submitted=tuple(ids), swept=swept, warning=warning)


def _has_signed_off(folder: StudyFolder, row: JobRow) -> bool:
    """Whether a worker has ended that Slurm is still clearing away: of several that end at once none waits."""
    clearing = row.kind == "worker" and row.state in ("RUNNING", "COMPLETING")
    life = read_heartbeat(folder, row.id) if clearing else None
    return life is not None and life.end is not None


def _submit_all(
    folder: StudyFolder,
    config: StudyConfig,
    due: Sequence[JobSpec],
    *,
    leave: Callable[[Sequence[str]], list[str]],
    patience_s: float,
) -> tuple[list[str], str]:
    """Ids of the jobs, and a complaint about those that were refused after others had been submitted."""
    at_most = max_array_size() if any(spec.count > 1 for spec in due) else None
    newest = find_snapshot(folder)
    code = newest.hash if newest else None
    ids: list[str] = []
    elements: list[str] = []
    said: list[str] = []
    for spec in [part for whole in due for part in split_array(whole, at_most=at_most)]:
        try:
            taken = _retry_while_away(
                partial(submit_within_limits, folder, config, spec, code=code), seconds=patience_s
            )
        except ClusterError as error:
            if not ids:
                raise
            said.append(f"submitted {', '.join(ids)}, but no further job: {error}")
            break
        ids.append(taken.id)
        elements += [f"{taken.id}_{index}" for index in range(taken.count)]
        if taken.said:
            said.append(taken.said)
            break
    try:
        ids += leave(elements)
    except ClusterError as error:
        said.append(
            f"submitted {', '.join(ids) or 'nothing'}, and not the follow-up step: {error}; {_BY_HAND}"
        )
    return ids, "; ".join(said)


def _submit_follow_up(
    folder: StudyFolder, config: StudyConfig, rows: Sequence[JobRow], new: Sequence[str], *, patience_s: float
) -> list[str]:
    """Submits the step that comes after these elements and those that still live, unless one waits for them already."""
    mine = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID")
    waiting = any(_will_still_run(row) for row in rows if row.id.split("_")[0] != mine)
    after = [row.id for row in rows if row.active and row.kind == "worker"] + list(new)
    if config.resources.follow_up is not True or not after or (waiting and not new):
        return []
    # Without a question to the controller only Slurm's own word tells an end, and that is of all of them.
    asks = any(shutil.which(command) for command in ("squeue", "scontrol"))
    any_of = config.execution.trials_per_job == "auto" and asks
    jobs = after if any_of else list(dict.fromkeys(id_.split("_")[0] for id_ in after))
    spec = JobSpec(kind="follow-up", count=1, throttle=1, after=tuple(jobs), any_of=any_of)
    return [_retry_while_away(partial(submit, folder, config, spec), seconds=patience_s)]


def _will_still_run(row: JobRow) -> bool:
    """Whether a step will still look at what is there now.

    One that runs may have looked already, and count on this one. One that was requeued with its node is held for
    minutes (BeginTime), or until an administrator releases it.
    """
    reason = row.reason.lower()
    held = reason in ("begintime", "dependencyneversatisfied") or "held" in reason or "hold" in reason
    return row.kind == "follow-up" and row.state == "PENDING" and not held


_BY_HAND = "dead trials will not be replaced by themselves: `hpotune resume` when the jobs have ended"


def _retry_while_away(call: Callable[[], _T], *, seconds: float, away: Sequence[str] = _AWAY) -> _T:
    """The call's answer; calls again while Slurm's complaint holds one of the words that say it is away."""
    until = time.monotonic() + seconds
    while True:
        try:
            return call()
        except ClusterError as error:
            if not any(word in str(error).lower() for word in away) or time.monotonic() + PAUSE_S > until:
                raise
        time.sleep(PAUSE_S)


def _stopped_by_user(folder: StudyFolder, rows: Sequence[JobRow]) -> str:
    """Why the missing trials are not wanted any more; empty when they are."""
    resume = f"`hpotune resume {folder.path}` goes on"
    if folder.cancelled.exists():
        return f"the study was cancelled, so no further job was submitted; {resume}"
    if any(row.active and row.kind == "worker" for row in rows):
        return ""
    last = next((job["id"] for job in reversed(submitted_jobs(folder)) if job["kind"] == "worker"), None)
    unfinished = {row.state for row in rows if row.id.split("_")[0] == last and row.state != "COMPLETED"}
    # elements that were cancelled before they started have no line of their own
    if "CANCELLED" in unfinished and unfinished <= {"CANCELLED", "GONE"}:
        return f"job {last} was cancelled, so no further one was submitted; {resume}"
    return ""


def _refuse_to_repeat(folder: StudyFolder, rows: Sequence[JobRow]) -> None:
    """Raises: ClusterError where the last FRUITLESS jobs have ended by themselves and took no trial."""
    live = {row.id.split("_")[0] for row in rows if row.active}
    taken_away = {row.id.split("_")[0] for row in rows if row.state in _TAKEN}
    ended = [job["id"] for job in submitted_jobs(folder) if job["kind"] == "worker" and job["id"] not in live]
    last = ended[-MAX_FRUITLESS:]
    if len(last) == MAX_FRUITLESS and not any(
        folder.took_trial(id_).exists() or id_ in taken_away for id_ in last
    ):
        raise ClusterError(
            f"jobs {' and '.join(last)} ended without taking a trial, so no further one was submitted; see the log in "
            f"{folder.jobs / last[-1]}, mend the cause, then `hpotune resume {folder.path}`"
        )


def first_jobs(config: StudyConfig, *, now: datetime) -> list[JobSpec]:
    """What a study without trials or jobs would submit."""
    return next_jobs(config, [], [], now=now)

"""Whether a user cancelled the whole study, or only some of its jobs: decided by what Slurm recorded of their ends.

`hpotune cancel` cancels the study, and so does a `scancel` that took all jobs that were left. After any other one the
study continues: what a single cancelled element ran waits again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hpotune.config.json_file import read_regular
from hpotune.records.jobs import JobRow
from hpotune.slurm.heartbeat_states import is_replaced
from hpotune.slurm.job_arrays import array_job_id
from hpotune.slurm.job_time import query_ends
from hpotune.slurm.study_jobs import submitted_jobs
from hpotune.workspace.atomic_files import touch, write_atomic
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.heartbeat import read_heartbeat

SETTLE_S = 60.0
"""How long a cancelled job may be in Slurm's state COMPLETING (KillWait, 30 s where a site does not set it)."""
SETTLE_POLL_S = 5.0
_ALIVE = ("worker", "own")


def settled_jobs(ask: Callable[[], list[JobRow]]) -> list[JobRow]:
    """The jobs once those that were cancelled together have all ended: they do so within seconds of each other."""
    until = time.monotonic() + SETTLE_S
    while True:
        rows = ask()
        workers = [row for row in rows if row.kind == "worker"]
        settling = any(row.state == "COMPLETING" for row in workers) and any(
            row.state in ("CANCELLED", "GONE") for row in workers
        )
        if not settling or time.monotonic() > until:
            return rows
        time.sleep(SETTLE_POLL_S)


def cancelled_jobs(folder: StudyFolder, rows: Sequence[JobRow]) -> str:
    """The jobs that a user cancelled when nothing else was left (`7`, or `7_3`); empty where others ended later.

    An element that was cancelled alone before it started leaves no record in Slurm, so it never stands for the study.
    """
    elsewhere = {
        job.id for job in submitted_jobs(folder) if job.hq_name
    }  # of HyperQueue's tasks no end is known
    workers = [
        row
        for row in rows
        if row.kind == "worker" and array_job_id(row.id) not in elsewhere and not is_replaced(folder, row.id)
    ]
    if any(row.active and row.kind in _ALIVE for row in rows) or not any(
        row.state in ("CANCELLED", "GONE") for row in workers
    ):
        return ""
    ends = query_ends([row.id for row in workers])
    cancelled = {id_: end for id_, (state, end) in ends.items() if state == "CANCELLED"}
    if not cancelled:
        return ""
    last = max(cancelled.values())
    if any(state != "CANCELLED" and end > last for state, end in ends.values()):
        return ""
    if any((_last_sign(folder, row) or 0.0) > last for row in workers if row.id not in ends):
        return ""
    taken = [id_ for id_, end in cancelled.items() if last - end <= SETTLE_S]
    names = taken if len(taken) == 1 else dict.fromkeys(array_job_id(id_) for id_ in taken)
    return ", ".join(names)


def cancelled_how(folder: StudyFolder, rows: Sequence[JobRow]) -> str:
    """What cancelled the study: what its folder says, else a scancel of all jobs that were left; empty: nothing did."""
    if (marked := cancellation(folder)) is not None:
        return marked
    jobs = cancelled_jobs(folder, rows)
    return f"`scancel` of job {jobs}, all that was left, outside hpotune" if jobs else ""


def _last_sign(folder: StudyFolder, row: JobRow) -> float | None:
    """When a worker that Slurm knows nothing of was last seen, in Unix seconds; None if it never started."""
    heartbeat = read_heartbeat(folder, row.id)
    return None if heartbeat is None else max(heartbeat.last_beat, heartbeat.end or 0.0)


def mark_cancelled(folder: StudyFolder, how: str) -> None:
    """Record that the study was cancelled, and by what: follow-ups submit nothing until it is continued.

    On a full disk the mark is an empty file. Raises: OSError where there is not even that.
    """
    try:
        write_atomic(folder.cancelled, how + "\n")
    except OSError:
        touch(folder.cancelled)


def cancellation(folder: StudyFolder) -> str | None:
    """What cancelled the study; None where nothing did, or it was continued since."""
    try:
        return read_regular(folder.cancelled).decode(errors="replace").strip() or "`hpotune cancel`"
    except FileNotFoundError:
        return None
    except OSError:
        return "`hpotune cancel`"

"""Which workers are stale, by all available evidence: the process on this machine, the job in Slurm, the lease."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hpotune.records.jobs import JobRow
from hpotune.records.trial import LOCAL, Failure, TrialRow
from hpotune.slurm.study_jobs import cached_jobs, failure_by_job_state
from hpotune.storage import lease_expired, output_reader, requeue_lock, stale_on_host
from hpotune.workspace.folder import StudyFolder

if TYPE_CHECKING:  # reading a study does not import Optuna
    from hpotune.storage import TrialQueue


def stale_failure(jobs: Sequence[JobRow], *, lease_s: float) -> Callable[[TrialRow], Failure | None]:
    """A function that returns the failure of a running trial whose worker is stale, else None.

    Evidence, in this order: the process of a worker on this machine; the end of its job; its lease. The lease does not
    count while Slurm knows hpotune's own job as running, since the worker is all that runs in it. A hand-written script
    may continue without the worker that it started, and a job that waits again after a node failure has none.
    """
    by_process, by_job, by_lease = (
        stale_on_host(platform.node()),
        failure_by_job_state(jobs),
        lease_expired(lease_s),
    )
    waiting = ("PENDING", "REQUEUED")
    known_running = {
        job.id for job in jobs if job.active and job.kind == "worker" and job.state not in waiting
    }

    def failure(row: TrialRow) -> Failure | None:
        worker = row.worker
        if worker is None:
            return None
        if worker.job == LOCAL and worker.host == platform.node():
            return by_process(worker)
        return by_job(worker) or (None if worker.job in known_running else by_lease(row))

    return failure


def lost_trials(rows: Sequence[TrialRow], jobs: Sequence[JobRow], *, lease_s: float) -> list[int]:
    """Numbers of running trials whose worker is stale and that are not requeued yet."""
    failure = stale_failure(jobs, lease_s=lease_s)
    return [row.number for row in rows if row.state == "running" and failure(row)]


def requeue_lost_trials(folder: StudyFolder, store: TrialQueue) -> list[int]:
    """Record, requeue or fail the trials of stale workers, as far as is known now; returns their numbers."""
    jobs = cached_jobs(folder, store.rows(), lease_s=store.config.execution.lease_s).rows
    failure = stale_failure(jobs, lease_s=store.config.execution.lease_s)
    with requeue_lock(folder) as held:
        return store.requeue_stale(failure, read_output=output_reader(folder)) if held else []

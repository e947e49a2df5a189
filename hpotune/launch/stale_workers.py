"""Which workers are dead, by every test there is: the process on this machine, the job on the cluster, the lease."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hpotune.records.jobs import JobRow
from hpotune.records.trial import LOCAL, Failure, TrialRow
from hpotune.slurm.jobs import cached_jobs, failure_by_job_state
from hpotune.storage import dead_here, results_in, silent
from hpotune.workspace.folder import StudyFolder

if TYPE_CHECKING:  # a look at a study does without Optuna
    from hpotune.storage import Store


def stale_failure(jobs: Sequence[JobRow], *, lease_s: float) -> Callable[[TrialRow], Failure | None]:
    """Tells the death of workers: of this machine, of an ended job, and silent ones that nobody vouches for.

    Slurm vouches for a job of ours that it knows as alive: its worker is all that runs there. A script written by hand
    may go on without the worker that it started, and one that waits again after its node died has none.
    """
    here, there, quiet = dead_here(platform.node()), failure_by_job_state(jobs), silent(lease_s)
    waits = ("PENDING", "REQUEUED")
    vouched = {job.id for job in jobs if job.active and job.kind == "worker" and job.state not in waits}

    def dead(row: TrialRow) -> Failure | None:
        worker = row.worker
        if worker is None:
            return None
        if worker.job == LOCAL and worker.host == platform.node():
            return here(worker)
        return there(worker) or (None if worker.job in vouched else quiet(row))

    return dead


def lost_trials(rows: Sequence[TrialRow], jobs: Sequence[JobRow], *, lease_s: float) -> list[int]:
    """Numbers of running trials whose worker is dead and that nobody has told so yet."""
    dead = stale_failure(jobs, lease_s=lease_s)
    return [row.number for row in rows if row.state == "running" and dead(row)]


def requeue_lost_trials(folder: StudyFolder, store: Store) -> list[int]:
    """Settles the trials of dead workers as far as can be known now; returns their numbers."""
    jobs = cached_jobs(folder, store.rows(), lease_s=store.config.execution.lease_s).rows
    dead = stale_failure(jobs, lease_s=store.config.execution.lease_s)
    return store.sweep(dead, left=results_in(folder))

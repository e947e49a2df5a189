"""The next follow-up job; and where there is none, the worker that does its work at its own end.

No follow-up job waits where Slurm refused it (a limit on queued jobs is used up) or where it was cancelled.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import ClusterError
from hpotune.launch.held_jobs import only_held_left
from hpotune.records.jobs import JobRow, JobSpec
from hpotune.slurm.commands import run_command
from hpotune.slurm.job_arrays import array_job_id
from hpotune.slurm.study_jobs import cached_jobs, submitted_jobs
from hpotune.storage import TrialQueue
from hpotune.workspace.folder import StudyFolder

_STAND_IN = "the worker that ends last does its work; if it is killed, run `hpotune resume`"


def submit_next(
    folder: StudyFolder,
    config: StudyConfig,
    rows: Sequence[JobRow],
    new: Sequence[str],
    *,
    submit: Callable[[JobSpec], str],
) -> tuple[list[str], str]:
    """Submit the next follow-up, dependent on the new elements and on active ones, unless one waits for them already.

    Returns its id, if there is one, and a warning where Slurm refused it: workers do its work then.
    """
    own_job = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID")
    waiting = any(_will_still_run(row) for row in rows if array_job_id(row.id) != own_job)
    after = [row.id for row in rows if row.active and row.kind == "worker"] + list(new)
    if config.resources.follow_up is not True or not after or (waiting and not new):
        return [], ""
    # Without a command that asks the controller, ends are known only because Slurm starts the dependent job.
    can_ask = any(shutil.which(command) for command in ("squeue", "scontrol"))
    any_of = config.execution.trials_per_job == "auto" and can_ask
    jobs = after if any_of else list(dict.fromkeys(array_job_id(id_) for id_ in after))
    spec = JobSpec(kind="follow-up", count=1, throttle=1, after=tuple(jobs), any_of=any_of)
    try:
        id_ = submit(spec)
    except ClusterError as error:
        if waiting:  # it comes too, if later, and submits the next one
            return [], ""
        _missing(folder).touch()
        return [], f"no follow-up job was submitted ({error}): {_STAND_IN}"
    _missing(folder).unlink(missing_ok=True)
    return [id_], ""


def _missing(folder: StudyFolder) -> Path:
    """Exists from the refusal of a follow-up job until one is submitted."""
    return folder.jobs / "no-follow-up"


def _will_still_run(row: JobRow) -> bool:
    """Whether a pending follow-up job will run after this moment.

    A running one may have looked already, and may rely on this one. One that was requeued with its node is held for
    minutes (BeginTime), or until an administrator releases it.
    """
    reason = row.reason.lower()
    held = reason in ("begintime", "dependencyneversatisfied") or "held" in reason or "hold" in reason
    return row.kind == "follow-up" and row.state == "PENDING" and not held


def stands_in(folder: StudyFolder, config: StudyConfig, store: TrialQueue, *, job: str) -> bool:
    """Whether the worker of a job does at its end what a follow-up would: none was submitted, or none is left.

    Only for jobs that hpotune submitted. Asks Slurm at most once in 30 s for all workers of the study.
    """
    if config.resources.follow_up is not True or folder.cancelled.exists():
        return False
    if array_job_id(job) not in {submitted.id for submitted in submitted_jobs(folder)}:
        return False
    if _missing(folder).exists():
        return True
    jobs = cached_jobs(folder, store.rows(), lease_s=config.execution.lease_s).rows
    follow_ups = [row for row in jobs if row.kind == "follow-up" and not row.held_by_slurm]
    return only_held_left(jobs, beside=job) or not any(
        row.active or row.state == "UNKNOWN" for row in follow_ups
    )


def requeue_own_job(env: Mapping[str, str]) -> bool:
    """Put this job back into the queue, where it keeps its slot under limits; whether Slurm did so.

    Slurm ends the job at once.
    """
    job = env.get("SLURM_JOB_ID")
    with suppress(ClusterError):
        if job is not None:
            run_command(["scontrol", "requeue", job])
            return True
    return False

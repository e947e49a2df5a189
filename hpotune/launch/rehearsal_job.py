"""The rehearsal of a study as a Slurm job (`resources.rehearsal: job`), on whose success its first workers depend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import ClusterError
from hpotune.records.jobs import JobRow, JobSpec
from hpotune.slurm.study_jobs import submitted_jobs
from hpotune.workspace.folder import StudyFolder


def required_rehearsal(
    folder: StudyFolder,
    config: StudyConfig,
    rows: Sequence[JobRow],
    *,
    unattended: bool,
    submit: Callable[[JobSpec], str],
) -> str | None:
    """The job that new workers depend on; submits it if there is none yet. None: they may start at once.

    Raises: ClusterError if the rehearsal found mistakes or its job failed, and nobody but a job asks again.
    """
    if config.resources.rehearsal != "job" or config.model is None:
        return None
    record = folder.rehearsal()
    if record is not None and record.state != "failed":
        return None
    waiting = next((row.id for row in rows if row.kind == "rehearsal" and row.active), None)
    if waiting is not None:
        return waiting
    if unattended and (ended := _last_rehearsal(folder)):
        found = "; ".join(record.mistakes) if record is not None else f"job {ended} gave no result"
        raise ClusterError(
            f"the rehearsal failed, so no worker was submitted: {found}; "
            f"mend that, then `hpotune submit {folder.path}`, or submit with --no-rehearsal"
        )
    return submit(JobSpec(kind="rehearsal", count=1, throttle=1))


def _last_rehearsal(folder: StudyFolder) -> str | None:
    """The id of the rehearsal job that was submitted last."""
    return next((job.id for job in reversed(submitted_jobs(folder)) if job.kind == "rehearsal"), None)

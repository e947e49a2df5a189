"""The rerun of a trial as a Slurm job of its own: the resources of a worker, its script and log in reruns/N-K/jobs/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import join

from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import ClusterError
from hpotune.records.jobs import JobSpec
from hpotune.slurm.job_script import clean_environment, command_executor, job_python
from hpotune.slurm.partitions import with_types_here
from hpotune.slurm.submit import check_submittable
from hpotune.workspace.folder import StudyFolder

_ONE = JobSpec(kind="worker", count=1, throttle=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmittedRerun:
    """A rerun that waits in the queue."""

    trial: int
    job: str
    folder: Path
    """Of the rerun; comparison.json is in it once the job has ended."""


def check_rerun_job(folder: StudyFolder, config: StudyConfig) -> None:
    """Ask Slurm whether it would accept the job, before anything is made.

    Raises: ClusterError where Slurm is not installed or would refuse it, or the study runs on HyperQueue.
    """
    if config.execution.place == "hyperqueue":
        raise ClusterError(
            "rerun: --slurm is for studies with execution.place: slurm; run it here, without --slurm"
        )
    check_submittable(folder, config, _ONE)


def submit_rerun(folder: StudyFolder, config: StudyConfig, number: int, *, own: Path) -> SubmittedRerun:
    """Submit a job that runs the trial again into the folder `own`.

    Raises: ClusterError as `submit_array`.
    """
    config = with_types_here(config)
    command = join(
        [job_python(config), "-m", "hpotune", "rerun", str(folder.path), str(number), "--into", own.name]
    )
    with clean_environment():
        executor = command_executor(StudyFolder(path=own), config, _ONE)
        executor.update_parameters(job_name=f"{config.name}-rerun")
        job = executor.submit_array(command, count=1, record={"kind": "rerun", "count": 1, "trial": number})
    return SubmittedRerun(trial=number, job=job, folder=own)

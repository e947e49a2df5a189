"""When a worker's job ends, and what a worker on a broken node can still do for the others."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from hpotune.errors import ClusterError
from hpotune.launch.ask import ask
from hpotune.study.config import StudyConfig
from hpotune.study.folder import StudyFolder


def job_end(folder: StudyFolder, config: StudyConfig, env: Mapping[str, str], *, job: str) -> float | None:
    """When this job ends, in Unix seconds: by Slurm's variable, its start and `resources.time`, or one question.

    None outside Slurm and where nobody knows.
    """
    if "SLURM_JOB_ID" not in env:
        return None
    if end := env.get("SLURM_JOB_END_TIME"):
        return float(end)
    if (folder.jobs / job.split("_")[0] / "job.json").is_file():
        return float(env.get("HPOTUNE_JOB_START") or time.time()) + config.resources.walltime_min * 60
    with suppress(ClusterError, ValueError):  # a script that somebody wrote by hand
        told = ask(["squeue", "-h", "-j", env["SLURM_JOB_ID"], "-o", "%e"]).split()
        return datetime.fromisoformat(told[0]).timestamp() if told else None
    return None


def leave_out(job: str, host: str) -> bool:
    """Asks Slurm to start no further element of this job's array on a node; whether it took that.

    A broken node is always free: without this it would take one waiting element after the other.
    """
    try:
        ask(["scontrol", "update", f"JobId={job.split('_')[0]}", f"ExcNodeList={host}"])
    except ClusterError:  # scontrol is not there, or no element waits any more
        return False
    return True

"""When a worker's job ends, and why Slurm requeued it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from hpotune.config.json_file import optional_object
from hpotune.config.schema.execution import Cause
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import ClusterError
from hpotune.slurm.commands import run_command
from hpotune.workspace.folder import StudyFolder


def job_end(folder: StudyFolder, config: StudyConfig, env: Mapping[str, str], *, job: str) -> float | None:
    """When this job ends, in Unix seconds; None outside Slurm and where it is unknown.

    Sources, in this order: SLURM_JOB_END_TIME, the job's start and its recorded time limit, squeue.
    """
    if "SLURM_JOB_ID" not in env:
        return None
    if end := env.get("SLURM_JOB_END_TIME"):
        return float(end)
    recorded = optional_object(folder.jobs / job.split("_")[0] / "job.json")
    if recorded is not None:
        with suppress(ValueError, TypeError):  # damaged
            minutes = float(recorded.get("time_min") or config.resources.walltime_min)  # as submitted
            return float(env.get("HPOTUNE_JOB_START") or time.time()) + minutes * 60
    with suppress(ClusterError, ValueError):  # a hand-written batch script
        shown = run_command(["squeue", "-h", "-j", env["SLURM_JOB_ID"], "-o", "%e"]).split()
        return datetime.fromisoformat(shown[0]).timestamp() if shown else None
    return None


def requeue_cause(env: Mapping[str, str]) -> Cause:
    """Why Slurm has started this job again: a failed node, or preemption (also where the cause is unknown)."""
    if int(env.get("SLURM_RESTART_COUNT") or 0) == 0:
        return "preempted"
    with suppress(ClusterError):
        states = run_command(
            ["sacct", "-n", "-P", "-X", "-D", "-j", env["SLURM_JOB_ID"], "-o", "State"]
        ).split()
        ended = [state for state in states if state not in ("RUNNING", "PENDING", "REQUEUED")]
        if ended and ended[-1] in ("NODE_FAIL", "BOOT_FAIL"):
            return "node"
    return "preempted"

"""When a worker's job ends, and what a worker on a broken node can still do for the others."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from hpotune.config.schema.execution import Cause
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import ClusterError
from hpotune.slurm.commands import run_command
from hpotune.workspace.folder import StudyFolder


def job_end(folder: StudyFolder, config: StudyConfig, env: Mapping[str, str], *, job: str) -> float | None:
    """When this job ends, in Unix seconds: by Slurm's variable, its start and `resources.time`, or one question.

    None outside Slurm and where nobody knows.
    """
    if "SLURM_JOB_ID" not in env:
        return None
    if end := env.get("SLURM_JOB_END_TIME"):
        return float(end)
    with suppress(OSError, ValueError):
        told = json.loads((folder.jobs / job.split("_")[0] / "job.json").read_text(encoding="utf-8"))
        minutes = told.get("time_min") or config.resources.walltime_min  # as it was at its submission
        return float(env.get("HPOTUNE_JOB_START") or time.time()) + minutes * 60
    with suppress(ClusterError, ValueError):  # a script that somebody wrote by hand
        shown = run_command(["squeue", "-h", "-j", env["SLURM_JOB_ID"], "-o", "%e"]).split()
        return datetime.fromisoformat(shown[0]).timestamp() if shown else None
    return None


def requeue_cause(env: Mapping[str, str]) -> Cause:
    """Why Slurm has started this job again: its node died, or it made room for another (told where nobody knows)."""
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


def exclude_node(job: str, host: str) -> bool:
    """Asks Slurm to start no further element of this job's array on a node; whether it took that.

    A broken node is always free: without this it would take one waiting element after the other.
    """
    array = job.split("_")[0]
    try:
        shown = re.search(r"ExcNodeList=(\S+)", run_command(["scontrol", "show", "job", "-o", array]))
        before = [] if shown is None or shown[1] == "(null)" else [shown[1]]  # an update replaces the list
        run_command(["scontrol", "update", f"JobId={array}", f"ExcNodeList={','.join([*before, host])}"])
    except ClusterError:  # scontrol is not there, or no element waits any more
        return False
    return True

"""Why Slurm took a job from its worker: a lost node, or preemption. Asks Slurm; changes nothing.

Slurm requeues such a job before it ends the processes: the controller counts another restart, and accounting has the
state in which the earlier run ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from hpotune.config.schema.execution import Cause
from hpotune.errors import ClusterError
from hpotune.records.trial import Failure, Worker, slurm_job_id
from hpotune.slurm.command_tables import number_of, scontrol_fields
from hpotune.slurm.commands import run_command
from hpotune.slurm.partitions import state_if_down

ANSWER_S = 10.0
"""Seconds that a command may take: the worker asks while it is being ended (KillWait)."""
_NODE = ("NODE_FAIL", "BOOT_FAIL")
_NOT_ENDED = ("RUNNING", "PENDING", "REQUEUED")


def job_loss(env: Mapping[str, str], worker: Worker) -> Failure | None:
    """Why Slurm took this job without a warning; None where a user ended it, or no command can tell."""
    job, host = f"its job {worker.job}", worker.host
    if state := state_if_down(host):
        return Failure(
            cause="node", message=f"Slurm took node {host} out of service ({state}) and ended {job}"
        )
    if not _is_requeued(env):
        return None
    state = _ended_as(env)
    if state in _NODE:
        return Failure(cause="node", message=f"node {host} failed, and Slurm requeued {job} ({state})")
    if state == "PREEMPTED":
        return Failure(cause="preempted", message=f"{job} was preempted on {host}")
    return None


def requeue_cause(env: Mapping[str, str]) -> Cause:
    """Why Slurm has started this job again: a failed node, or preemption (also where the cause is unknown)."""
    if int(env.get("SLURM_RESTART_COUNT") or 0) == 0:
        return "preempted"
    return "node" if _ended_as(env) in _NODE else "preempted"


def _is_requeued(env: Mapping[str, str]) -> bool:
    """Whether the controller counts more restarts of this job than it did when this process started."""
    job = slurm_job_id(env)
    with suppress(ClusterError):
        text = run_command(["scontrol", "show", "job", "-o", job], answer_s=ANSWER_S) if job else ""
        restarts = number_of(scontrol_fields(text).get("Restarts", ""))
        return (restarts or 0) > int(env.get("SLURM_RESTART_COUNT") or 0)
    return False


def _ended_as(env: Mapping[str, str]) -> str:
    """The state in which the last run of this job ended, by accounting; empty where it does not tell."""
    job = slurm_job_id(env)
    with suppress(ClusterError):
        command = ["sacct", "-n", "-P", "-X", "-D", "-j", job or "", "-o", "State"]
        states = run_command(command, answer_s=ANSWER_S).split() if job else []
        return next((state for state in reversed(states) if state not in _NOT_ENDED), "")
    return ""

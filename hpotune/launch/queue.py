"""What the cluster says of a study's jobs: one squeue for those that live, one sacct for those that have ended.

No loop, no submitit.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from hpotune.errors import ClusterError
from hpotune.plan.next import JobRow
from hpotune.study.folder import StudyFolder
from hpotune.study.trial import Cause, Failure, Worker

ANSWER_S = 60
"""How long Slurm's commands may take to answer."""
_CAUSES: dict[str, Cause] = {
    "TIMEOUT": "timeout",
    "PREEMPTED": "preempted",
    "OUT_OF_MEMORY": "oom",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
}


def require_slurm() -> None:
    """Raises: ClusterError where Slurm's commands are not installed."""
    missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
    if missing:
        raise ClusterError(
            f"{' and '.join(missing)} not found: no Slurm here; submit from a login node, or use `hpotune run`"
        )


def recorded_jobs(folder: StudyFolder) -> list[dict[str, Any]]:
    """Every submission of the study, oldest first."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.jobs.glob("*/job.json")]
    return sorted(found, key=lambda job: int(job["id"]))


def job_rows(folder: StudyFolder) -> list[JobRow]:
    """Every job element of the study as Slurm tells it now, by one squeue and one sacct for what has left it."""
    jobs = recorded_jobs(folder)
    ids = [f"{job['id']}_{index}" for job in jobs for index in range(job["count"])]
    live = _queued() if ids else {}
    gone = [
        job["id"] for job in jobs if any(f"{job['id']}_{index}" not in live for index in range(job["count"]))
    ]
    ended = _accounted(gone)
    kinds = {job["id"]: job["kind"] for job in jobs}
    rows = [live.get(id_) or ended.get(id_) or JobRow(id=id_, state="GONE") for id_ in ids]
    return [
        JobRow(id=r.id, state=r.state, reason=r.reason, exit_code=r.exit_code, kind=kinds[r.id.split("_")[0]])
        for r in rows
    ]


def _queued() -> dict[str, JobRow]:
    """The user's jobs that wait or run, by id, one line an array element."""
    lines = ask(["squeue", "-h", "-r", "-u", str(os.getuid()), "-o", "%i|%T|%r"]).splitlines()
    rows = [line.strip().split("|") for line in lines if line.count("|") == 2]
    return {
        id_: JobRow(id=id_, state=state, reason="" if reason == "None" else reason)
        for id_, state, reason in rows
    }


def _accounted(ids: Sequence[str]) -> dict[str, JobRow]:
    """Jobs that have left the queue, by id; empty where accounting is off."""
    if not ids or shutil.which("sacct") is None:
        return {}
    try:
        text = ask(["sacct", "-n", "-P", "-X", "-j", ",".join(ids), "-o", "JobID,State,ExitCode"])
    except ClusterError:
        return {}
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 2]
    return {id_: JobRow(id=id_, state=state.split()[0], exit_code=code) for id_, state, code in rows}


def dead_jobs(rows: Sequence[JobRow]) -> Callable[[Worker], Failure | None]:
    """Tells the death of workers whose job has ended; says nothing of jobs that the cluster does not know."""
    by_id = {row.id: row for row in rows}

    def dead(worker: Worker) -> Failure | None:
        row = by_id.get(worker.job)
        if row is None or row.live or row.state == "UNKNOWN":
            return None
        said = (
            "has left the queue"
            if row.state == "GONE"
            else f"ended as {row.state} (exit {row.exit_code or 'unknown'})"
        )
        return Failure(
            cause=_CAUSES.get(row.state, "killed"), message=f"its job {row.id} {said} on {worker.host}"
        )

    return dead


def cancel_jobs(ids: Sequence[str]) -> None:
    """Ends waiting and running jobs.

    Raises: ClusterError when Slurm does not answer.
    """
    if ids:
        ask(["scancel", *ids])


def ask(command: Sequence[str]) -> str:
    """What a command of Slurm prints.

    Raises: ClusterError when it is missing, fails or gives no answer.
    """
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=True)
    except FileNotFoundError:
        raise ClusterError(f"{command[0]} not found; run this where Slurm's commands are") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{command[0]} gave no answer in {ANSWER_S} s; try again later") from None
    except subprocess.CalledProcessError as error:
        raise ClusterError(
            f"{command[0]} failed: {words(error.stderr)}; is the controller up? `hpotune doctor` looks"
        ) from None
    return answer.stdout


def words(text: str) -> str:
    """Slurm's own complaint out of a longer text: its last line that says error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    line = (errors or lines or ["no reason given"])[-1]
    return line.removeprefix("sbatch: error: ").removeprefix("subprocess.CalledProcessError: ")

"""What the cluster says of a study's jobs: one squeue for those that live, one sacct for those that have ended.

No loop, no submitit.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hpotune.errors import ClusterError
from hpotune.plan.next import JobRow
from hpotune.study.folder import StudyFolder
from hpotune.study.trial import LOCAL, Cause, Failure, TrialRow, Worker

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


def job_rows(folder: StudyFolder, trials: Sequence[TrialRow]) -> list[JobRow]:
    """Every job element of the study as Slurm tells it now, by one squeue and one sacct for what has left it.

    Jobs that hpotune did not submit (an sbatch file written by hand) are known by the trials they run: kind `own`.

    Raises: ClusterError when Slurm does not answer.
    """
    kinds = _kinds(folder, trials)
    live = _queued(list(kinds))
    ended = _accounted([id_ for id_ in kinds if id_ not in live])
    rows = [live.get(id_) or ended.get(id_) or JobRow(id=id_, state="GONE") for id_ in kinds]
    return [replace(row, kind=kinds[row.id]) for row in rows]


def rows_or_unknown(folder: StudyFolder, trials: Sequence[TrialRow]) -> tuple[list[JobRow], str]:
    """`job_rows` and nothing to say; or where Slurm does not answer, every job as UNKNOWN, and why."""
    try:
        return job_rows(folder, trials), ""
    except ClusterError as error:
        kinds = _kinds(folder, trials)
        return [JobRow(id=id_, state="UNKNOWN", kind=kind) for id_, kind in kinds.items()], str(error)


def _kinds(folder: StudyFolder, trials: Sequence[TrialRow]) -> dict[str, str]:
    """Every job element that the study knows of, by id: worker, step or own."""
    kinds = {
        f"{job['id']}_{index}": job["kind"] for job in recorded_jobs(folder) for index in range(job["count"])
    }
    running = [row.worker.job for row in trials if row.state == "running" and row.worker]
    return kinds | {id_: "own" for id_ in running if id_ != LOCAL and id_ not in kinds}


def _jobs_of(ids: Sequence[str]) -> list[str]:
    """Job numbers of array elements, each once."""
    return list(dict.fromkeys(id_.split("_")[0] for id_ in ids))


def _queued(ids: Sequence[str]) -> dict[str, JobRow]:
    """Those of the jobs that wait or run, by id, one line an array element; whoever submitted them."""
    if not ids:
        return {}
    # A single unknown job is an error to squeue, one among several is not: the last is named twice.
    jobs = [*_jobs_of(ids), ids[-1].split("_")[0]]
    lines = ask(["squeue", "-h", "-r", "-j", ",".join(jobs), "-o", "%i|%T|%r"]).splitlines()
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
        text = ask(["sacct", "-n", "-P", "-X", "-j", ",".join(_jobs_of(ids)), "-o", "JobID,State,ExitCode"])
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

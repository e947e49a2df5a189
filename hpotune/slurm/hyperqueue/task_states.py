"""The states of a study's workers that are tasks of HyperQueue, in Slurm's words; and how they are cancelled.

A job is found on the server by its name, which holds a token. One that the server does not know was submitted to an
earlier server: its workers are judged by their heartbeats. A task whose worker has ended, though HyperQueue does not
know that yet, has a mark in the study's folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hpotune.records.jobs import JobRow
from hpotune.slurm.commands import ControllerUnreachable, one_line
from hpotune.slurm.hyperqueue.hq_commands import hq_json, jobs_by_name
from hpotune.slurm.job_arrays import array_job_id

_STATES = {
    "waiting": "PENDING",
    "running": "RUNNING",
    "finished": "COMPLETED",
    "failed": "FAILED",
    "canceled": "CANCELLED",
    "aborted": "CANCELLED",
}
"""HyperQueue's states of tasks -> Slurm's."""
_WAITS = "waits for a worker of HyperQueue"
_TIME_OUT = re.compile(r"time limit (was )?reached", re.IGNORECASE)
_CODE = re.compile(r"exit code (-?\d+)")


def query_task_states(
    ids: Sequence[str],
    names: Mapping[str, str],
    *,
    from_heartbeats: Callable[[Sequence[str]], dict[str, JobRow]],
    missing: list[str] | None = None,
) -> dict[str, JobRow]:
    """A row for every id. `names`: of the jobs on the server, by hpotune's number.

    Where no server answers, workers are judged by their heartbeats, and `missing` gets a sentence; a task that was not
    seen then is UNKNOWN.
    Raises: ClusterError where `hq` is missing, or does not answer.
    """
    if not ids:
        return {}
    try:
        numbers = jobs_by_name()
    except ControllerUnreachable as error:
        if missing is not None:
            missing.append(f"{error}; states of jobs by the workers' heartbeats")
        rows = from_heartbeats(ids)
        return {
            id_: replace(rows[id_], state="UNKNOWN") if rows[id_].state == "PENDING" else rows[id_]
            for id_ in ids
        }
    jobs = {job: numbers[names[job]] for job in map(array_job_id, ids) if names[job] in numbers}
    tasks = _tasks(list(dict.fromkeys(jobs.values())))
    beats = from_heartbeats(ids)
    return {id_: _row(id_, tasks.get(_key(id_, jobs)), beats[id_]) for id_ in ids}


def _key(id_: str, jobs: Mapping[str, int]) -> tuple[int, int]:
    """The server's numbers of a job and its task; job -1 where the server does not know it."""
    job, _, task = id_.partition("_")
    return jobs.get(job, -1), int(task or 0)


def _tasks(numbers: Sequence[int]) -> dict[tuple[int, int], tuple[str, str]]:
    """State and error of each task of these jobs."""
    if not numbers:
        return {}
    found = hq_json("task", "list", ",".join(map(str, numbers)))
    rows: dict[tuple[int, int], tuple[str, str]] = {}
    for job, tasks in (found if isinstance(found, dict) else {}).items():
        for task in tasks if isinstance(tasks, list) else []:
            if isinstance(task, dict) and isinstance(number := task.get("id"), int) and job.isdecimal():
                rows[int(job), number] = str(task.get("state")), str(task.get("error") or "")
    return rows


def _row(id_: str, task: tuple[str, str] | None, beat: JobRow) -> JobRow:
    if task is None:
        return JobRow(id=id_, state="GONE") if beat.state == "PENDING" else beat
    state, error = _STATES.get(task[0], "UNKNOWN"), one_line(task[1])
    if state == "RUNNING" and not beat.active and not beat.reason:  # its worker has ended, by a mark
        return beat
    if state == "FAILED" and _TIME_OUT.search(error):
        return JobRow(id=id_, state="TIMEOUT")
    code = _CODE.search(error)
    reason = _WAITS if state == "PENDING" else f"HyperQueue's state {task[0]}" if state == "UNKNOWN" else ""
    return JobRow(id=id_, state=state, reason=reason, exit_code=f"{code[1]}:0" if code else "")


def cancel_tasks(names: Sequence[str]) -> None:
    """Cancel jobs of HyperQueue by their names; those that the server does not know are left out.

    Raises: ClusterError where no server answers.
    """
    if names:
        known = jobs_by_name()
        numbers = [str(known[name]) for name in dict.fromkeys(names) if name in known]
        if numbers:
            hq_json("job", "cancel", ",".join(numbers))

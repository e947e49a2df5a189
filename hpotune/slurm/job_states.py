"""The states of jobs by the Slurm commands that are installed: squeue, else scontrol, and sacct for ended jobs.

Without squeue and scontrol, sacct gives all states; for jobs that it does not know, the heartbeats in the study's
folder do. Each command is called once for all jobs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from hpotune.errors import ClusterError
from hpotune.records.jobs import JobRow
from hpotune.slurm.commands import CommandMissing, run_command
from hpotune.slurm.job_arrays import array_job_id, array_job_ids, expand_ids

StatesFromHeartbeats = Callable[[Sequence[str]], dict[str, JobRow]]
"""The states of the jobs with these ids by their heartbeat files."""
_NO_TIME = ("", "N/A", "Unknown", "None", "(null)")


def query_states(ids: Sequence[str], *, from_heartbeats: StatesFromHeartbeats) -> dict[str, JobRow]:
    """A row for every id; state GONE for jobs that Slurm does not know any more.

    Raises: ClusterError when the controller's commands are installed and get no answer.
    """
    if not ids:
        return {}
    controller = _from_controller(ids)
    if controller is None:
        found = _without_elements(ids, _from_sacct(ids))
        return found | from_heartbeats([id_ for id_ in ids if id_ not in found])
    rest = [id_ for id_ in ids if id_ not in controller or not controller[id_].active]
    # Only sacct has exit codes, and it may be late: where the controller reports an end, sacct's active states are old.
    ended = {id_: row for id_, row in _from_sacct(rest).items() if not row.active}
    return {id_: ended.get(id_) or controller.get(id_) or JobRow(id=id_, state="GONE") for id_ in ids}


def _without_elements(ids: Sequence[str], found: dict[str, JobRow]) -> dict[str, JobRow]:
    """`found` with the elements of known jobs that were cancelled before they started: sacct has no line for them."""
    jobs = {array_job_id(id_) for id_ in found}
    return {
        id_: found.get(id_) or JobRow(id=id_, state="GONE")
        for id_ in ids
        if id_ in found or array_job_id(id_) in jobs
    }


def _from_controller(ids: Sequence[str]) -> dict[str, JobRow] | None:
    """What the controller knows: active jobs, and for some minutes ended ones. None where no command can ask it."""
    for query in (_from_squeue, _from_scontrol):
        try:
            return query(ids)
        except CommandMissing:
            continue
    return None


def _from_squeue(ids: Sequence[str]) -> dict[str, JobRow]:
    # squeue fails for a single unknown job but not for one among several: the last is named twice.
    jobs = [*array_job_ids(ids), array_job_id(ids[-1])]
    lines = run_command(
        ["squeue", "-h", "-r", "-t", "all", "-j", ",".join(jobs), "-o", "%i|%T|%r|%S"]
    ).splitlines()
    rows = [line.strip().split("|") for line in lines if line.count("|") == 3]
    return {id_: _row(id_, state, reason=reason, start=start) for id_, state, reason, start in rows}


def _from_scontrol(ids: Sequence[str]) -> dict[str, JobRow]:
    """The same by scontrol, which shows one job or all jobs."""
    wanted, found = set(array_job_ids(ids)), {}
    for line in run_command(["scontrol", "show", "job", "-o"]).splitlines():
        fields = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line))
        job, elements = (
            fields.get("ArrayJobId") or fields.get("JobId", ""),
            fields.get("ArrayTaskId"),
        )
        if job not in wanted or "JobState" not in fields:
            continue
        for id_ in expand_ids(f"{job}_[{elements}]" if elements else job):
            row = _row(
                id_,
                fields["JobState"],
                reason=fields.get("Reason", ""),
                start=fields.get("StartTime", ""),
            )
            found[id_] = row if row.active else replace(row, exit_code=fields.get("ExitCode", ""))
    return found


def _from_sacct(ids: Sequence[str]) -> dict[str, JobRow]:
    """What accounting knows; empty where it is off. It is seconds late, and hours after a restart of its database."""
    if not ids:
        return {}
    fields = "JobID,State,ExitCode"
    try:
        text = run_command(["sacct", "-n", "-P", "-X", "-j", ",".join(array_job_ids(ids)), "-o", fields])
    except ClusterError:
        return {}
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 2]
    return {
        id_: _row(id_, state, exit_code=code)
        for name, state, code in rows
        for id_ in expand_ids(name)
        if state
    }


def _row(id_: str, state: str, *, reason: str = "", start: str = "", exit_code: str = "") -> JobRow:
    """A row; `state` may have more than one word: CANCELLED by 1000."""
    word = state.split()[0].rstrip("+")
    waits = word == "PENDING"
    return JobRow(
        id=id_,
        state=word,
        reason="" if reason == "None" else reason,
        exit_code=exit_code,
        estimate=start if waits and start not in _NO_TIME else "",
    )

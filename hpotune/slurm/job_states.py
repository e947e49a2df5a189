"""The states of jobs by the Slurm commands that are installed: squeue, else scontrol, and sacct for ended jobs.

Without squeue and scontrol, sacct gives all states; for jobs that it does not know, the heartbeats in the study's
folder do. Each command is called once for all jobs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from hpotune.errors import ClusterError
from hpotune.records.jobs import ACTIVE_STATES, ENDED_STATES, HELD_STATES, JobRow
from hpotune.slurm.command_tables import JOB_ID, STATE, query_squeue, query_table, scontrol_fields
from hpotune.slurm.commands import CommandMissing, NoAnswer, UnreadableAnswer, one_line, run_command
from hpotune.slurm.job_arrays import array_job_id, array_job_ids, expand_ids

StatesFromHeartbeats = Callable[[Sequence[str]], dict[str, JobRow]]
"""The states of the jobs with these ids by their heartbeat files."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", re.ASCII)
ACCOUNTING_S = 30.0
"""Seconds that sacct may take: the states of active jobs do not depend on it."""


def query_states(
    ids: Sequence[str], *, from_heartbeats: StatesFromHeartbeats, missing: list[str] | None = None
) -> dict[str, JobRow]:
    """A row for every id; state GONE for jobs that Slurm does not know any more.

    `missing` gets a sentence for each fact that no command gave.
    Raises: ClusterError when the controller's commands are installed and get no answer, or none that can be read.
    """
    if not ids:
        return {}
    missing = [] if missing is None else missing
    controller = _from_controller(ids)
    if controller is None:
        found = _without_elements(ids, _from_sacct(ids, missing=missing))
        return found | from_heartbeats([id_ for id_ in ids if id_ not in found])
    rest = [id_ for id_ in ids if id_ not in controller or not controller[id_].active]
    # Only sacct has exit codes, and it may be late: where the controller reports an end, sacct's active states are old.
    ended = {
        id_: row
        for id_, row in _from_sacct(rest, missing=missing).items()
        if not row.active and row.state != "UNKNOWN"
    }
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
    """What the controller knows: active jobs, and for some minutes ended ones. None where no command can ask it.

    Raises: ClusterError where it does not answer; UnreadableAnswer where no command's answer can be read, or where a
        job that is not in it may be in a line that cannot be read.
    """
    unreadable: UnreadableAnswer | None = None
    for query in (_from_squeue, _from_scontrol):
        try:
            found, damaged = query(ids)
        except CommandMissing:
            continue
        except UnreadableAnswer as error:
            unreadable = unreadable or error
            continue
        if not damaged or all(id_ in found for id_ in ids):
            return found
        name = query.__name__.removeprefix("_from_")
        unreadable = UnreadableAnswer(f"{damaged} lines of {name}'s answer cannot be read; try again later")
    if unreadable is not None:
        raise unreadable
    return None


_SQUEUE = {"%i": "JOBID", "%T": "STATE", "%r": "REASON", "%S": "START_TIME"}


def _from_squeue(ids: Sequence[str]) -> tuple[dict[str, JobRow], int]:
    """Rows by id, and how many lines cannot be read."""
    table = query_squeue(array_job_ids(ids), _SQUEUE, is_row=_is_job)
    rows: dict[str, JobRow] = {}
    for id_, state, reason, start in table.rows:
        row = _row(id_, state, reason=reason, start=start)
        # a federation shows a job once for each cluster
        if id_ not in rows or row.active or not rows[id_].active:
            rows[id_] = row
    return rows, table.damaged


def _is_job(cells: tuple[str, ...]) -> bool:
    """Whether the first cells of a line are a job's id and state."""
    return bool(JOB_ID.fullmatch(cells[0]) and STATE.fullmatch(cells[1]))


def _from_scontrol(ids: Sequence[str]) -> tuple[dict[str, JobRow], int]:
    """The same by scontrol, which shows one job or all jobs."""
    wanted, found, damaged, read = set(array_job_ids(ids)), dict[str, JobRow](), 0, 0
    text = run_command(["scontrol", "show", "job", "-o"])
    for line in text.splitlines():
        if not line.startswith("JobId="):
            continue
        fields = scontrol_fields(line)
        job, elements = fields.get("ArrayJobId") or fields.get("JobId", ""), fields.get("ArrayTaskId")
        if not STATE.fullmatch(fields.get("JobState", "")) or not JOB_ID.fullmatch(job):
            damaged += 1
            continue
        read += 1
        if job not in wanted:
            continue
        for id_ in expand_ids(f"{job}_[{elements}]" if elements else job):
            row = _row(
                id_,
                fields["JobState"],
                reason=fields.get("Reason", ""),
                start=fields.get("StartTime", ""),
            )
            found[id_] = row if row.active else replace(row, exit_code=fields.get("ExitCode", ""))
    if not read and "No jobs in the system" not in text:
        raise UnreadableAnswer("scontrol show job printed no jobs; is it Slurm's own?")
    return found, damaged


_ELSEWHERE = "REVOKED"
"""Slurm's state of a federation's job that another cluster has started."""
_SACCT = ("JobID", "State", "ExitCode")


def _from_sacct(ids: Sequence[str], *, missing: list[str]) -> dict[str, JobRow]:
    """What accounting knows; empty where it is off. It is seconds late, and hours after a restart of its database."""
    if not ids:
        return {}
    try:
        table = query_table(
            ["sacct", "-P", "-X", "-j", ",".join(array_job_ids(ids)), "-o", ",".join(_SACCT)],
            _SACCT,
            is_row=_is_job,
            answer_s=ACCOUNTING_S,
        )
    except NoAnswer as error:
        missing.append(f"how jobs ended is not known: {error}")
        return {}
    except ClusterError:  # not installed, or no accounting
        return {}
    return {
        id_: _row(id_, state, exit_code=code if _EXIT.fullmatch(code) else "")
        for name, state, code in table.rows
        for id_ in expand_ids(name)
    }


_EXIT = re.compile(r"[0-9]{1,3}:[0-9]{1,3}")


def _row(id_: str, state: str, *, reason: str = "", start: str = "", exit_code: str = "") -> JobRow:
    """A row; `state` may have more than one word: CANCELLED by 1000."""
    word = state.split()[0].rstrip("+")
    reason = "" if reason in ("None", "(null)") else one_line(reason)
    if word in HELD_STATES:
        word, reason = "PENDING", reason or word
    if word not in (*ACTIVE_STATES, *ENDED_STATES) or word == _ELSEWHERE:
        word, reason = "UNKNOWN", f"Slurm's state {word}"
    waits = word == "PENDING"
    return JobRow(
        id=id_,
        state=word,
        reason=reason,
        exit_code=exit_code,
        estimate=start if waits and _TIME.fullmatch(start) else "",
    )

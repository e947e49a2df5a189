"""The state of jobs by whatever of Slurm's commands is there: squeue, else scontrol, and sacct for what has ended.

Where neither squeue nor scontrol is there, sacct tells all; of jobs that it does not know, the files that they leave
in the study's folder do. Each command is asked once for all jobs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from hpotune.errors import ClusterError
from hpotune.schedule.next_jobs import JobRow
from hpotune.slurm.commands import Absent, ask

Life = Callable[[Sequence[str]], dict[str, JobRow]]
"""What jobs' own files tell of those with these ids."""
_NO_TIME = ("", "N/A", "Unknown", "None", "(null)")


def told(ids: Sequence[str], *, life: Life) -> dict[str, JobRow]:
    """A row for every id; GONE where those who would know it do not.

    Raises: ClusterError when the controller's commands are there and get no answer.
    """
    if not ids:
        return {}
    controller = _controller(ids)
    if controller is None:
        found = _without_elements(ids, _accounted(ids))
        return found | life([id_ for id_ in ids if id_ not in found])
    rest = [id_ for id_ in ids if id_ not in controller or not controller[id_].live]
    # sacct alone has exit codes, and may be late: what it still calls live has ended where the controller says so
    ended = {id_: row for id_, row in _accounted(rest).items() if not row.live}
    return {id_: ended.get(id_) or controller.get(id_) or JobRow(id=id_, state="GONE") for id_ in ids}


def _without_elements(ids: Sequence[str], found: dict[str, JobRow]) -> dict[str, JobRow]:
    """With the elements of known jobs that were cancelled before they started, which have no line of their own."""
    jobs = {job_of(id_) for id_ in found}
    return {
        id_: found.get(id_) or JobRow(id=id_, state="GONE")
        for id_ in ids
        if id_ in found or job_of(id_) in jobs
    }


def _controller(ids: Sequence[str]) -> dict[str, JobRow] | None:
    """What the controller knows: jobs that live, and for minutes those that have ended. None: no command asks it."""
    for asked in (_queued, _shown):
        try:
            return asked(ids)
        except Absent:
            continue
    return None


def _queued(ids: Sequence[str]) -> dict[str, JobRow]:
    # A single unknown job is an error to squeue, one among several is not: the last is named twice.
    jobs = [*jobs_of(ids), job_of(ids[-1])]
    lines = ask(["squeue", "-h", "-r", "-t", "all", "-j", ",".join(jobs), "-o", "%i|%T|%r|%S"]).splitlines()
    rows = [line.strip().split("|") for line in lines if line.count("|") == 3]
    return {id_: _row(id_, state, reason=reason, start=start) for id_, state, reason, start in rows}


def _shown(ids: Sequence[str]) -> dict[str, JobRow]:
    """The same by scontrol, which tells of one job or of all."""
    wanted, found = set(jobs_of(ids)), {}
    for line in ask(["scontrol", "show", "job", "-o"]).splitlines():
        told = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line))
        job, elements = told.get("ArrayJobId") or told.get("JobId", ""), told.get("ArrayTaskId")
        if job not in wanted or "JobState" not in told:
            continue
        for id_ in expanded(f"{job}_[{elements}]" if elements else job):
            row = _row(id_, told["JobState"], reason=told.get("Reason", ""), start=told.get("StartTime", ""))
            found[id_] = row if row.live else replace(row, exit_code=told.get("ExitCode", ""))
    return found


def _accounted(ids: Sequence[str]) -> dict[str, JobRow]:
    """What accounting knows; empty where it is off. Late by seconds, and hours after a restart of its database."""
    if not ids:
        return {}
    fields = "JobID,State,ExitCode"
    try:
        text = ask(["sacct", "-n", "-P", "-X", "-j", ",".join(jobs_of(ids)), "-o", fields])
    except ClusterError:
        return {}
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 2]
    return {
        id_: _row(id_, state, exit_code=code) for name, state, code in rows for id_ in expanded(name) if state
    }


def _row(id_: str, state: str, *, reason: str = "", start: str = "", exit_code: str = "") -> JobRow:
    """`state` may go on after its first word: CANCELLED by 1000."""
    word = state.split()[0].rstrip("+")
    waits = word == "PENDING"
    return JobRow(
        id=id_,
        state=word,
        reason="" if reason == "None" else reason,
        exit_code=exit_code,
        estimate=start if waits and start not in _NO_TIME else "",
    )


def expanded(name: str) -> Iterator[str]:
    """Ids that a name stands for: `7`, `7_3`, or of waiting elements `7_[2-4,8-12:2%2]`."""
    job, _, elements = name.partition("_[")
    if not elements:
        yield name
        return
    for part in elements.rstrip("]").partition("%")[0].split(","):
        bounds = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if bounds:
            first, last, step = bounds.groups()
            yield from (f"{job}_{n}" for n in range(int(first), int(last or first) + 1, int(step or 1)))


def job_of(id_: str) -> str:
    """The job number of an array element's id."""
    return id_.partition("_")[0]


def jobs_of(ids: Sequence[str]) -> list[str]:
    """Job numbers of array elements, each once."""
    return list(dict.fromkeys(job_of(id_) for id_ in ids))

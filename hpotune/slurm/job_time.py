"""When a worker's job ends, and when jobs of the study ended. Asks Slurm; changes nothing.

The workers of a study share one answer about their jobs' times for 30 s; it is kept in jobs/.times.json.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path

from hpotune.config.json_file import optional_object
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.schema.walltime import TIME, seconds
from hpotune.errors import ClusterError, StoreError
from hpotune.records.jobs import JobTimes
from hpotune.records.trial import HYPERQUEUE_TASK
from hpotune.slurm.command_tables import JOB_ID, query_squeue, query_table, scontrol_fields
from hpotune.slurm.commands import CommandMissing, UnreadableAnswer, run_command
from hpotune.slurm.job_arrays import array_job_id, array_job_ids, expand_ids
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import exclusive_lock

ALLOCATION_END = "HPOTUNE_ALLOCATION_END"
"""In a task of HyperQueue: when the Slurm job ends in which it runs, in Unix seconds."""
SHARED_S = 30.0
"""Age in seconds up to which the workers of a study share an answer about their jobs' times."""
ANSWER_S = 20.0
"""Seconds that Slurm may take for it: a worker asks when its time is nearly out."""
_TOLERANCE_S = 5
"""Slurm's times are whole seconds; an end that differs by more from start + limit is another one."""


def job_times(
    folder: StudyFolder, config: StudyConfig, env: Mapping[str, str], *, job: str
) -> JobTimes | None:
    """When this job ends, by what was known at its start; None outside jobs and where that is unknown.

    Sources, in this order: SLURM_JOB_END_TIME, the job's start and its recorded time limit, Slurm. For a task of
    HyperQueue: its own time limit, or the end of the Slurm job in which it runs.
    """
    if HYPERQUEUE_TASK in env:
        return _task_times(_recorded_limit_s(folder, config, job), env)
    if "SLURM_JOB_ID" not in env:
        return None
    limit_s = _recorded_limit_s(folder, config, job)
    with suppress(KeyError, ValueError):
        return JobTimes(end=float(env["SLURM_JOB_END_TIME"]), limit_s=limit_s)
    if limit_s is not None:
        start = float(env.get("HPOTUNE_JOB_START") or time.time())
        return JobTimes(end=start + limit_s, limit_s=limit_s)
    return query_times(folder, job, max_age_s=0.0)  # a hand-written batch script


def _task_times(limit_s: float | None, env: Mapping[str, str]) -> JobTimes | None:
    ends = []
    with suppress(ValueError):
        ends += [float(env.get("HPOTUNE_JOB_START") or time.time()) + limit_s] if limit_s is not None else []
    with suppress(KeyError, ValueError):
        ends.append(float(env[ALLOCATION_END]))
    return JobTimes(end=min(ends), limit_s=limit_s) if ends else None


def _recorded_limit_s(folder: StudyFolder, config: StudyConfig, job: str) -> float | None:
    """The time limit that a job of hpotune's was submitted with, in seconds; None for other jobs."""
    recorded = optional_object(folder.jobs / array_job_id(job) / "job.json")
    with suppress(ValueError, TypeError):  # damaged
        if recorded is not None:
            return float(recorded.get("time_min") or config.resources.walltime_min) * 60
    return None


def query_times(folder: StudyFolder, job: str, max_age_s: float = SHARED_S) -> JobTimes | None:
    """What Slurm says now of a running job's time, or said at most `max_age_s` seconds ago; None without an answer.

    One call asks for all elements of the job's array. On a full disk each worker asks by itself.
    """
    file = folder.jobs / ".times.json"
    with suppress(OSError, StoreError), exclusive_lock(folder.jobs / ".times.lock"):
        if (cached := _read_times(file, array_job_id(job), max_age_s=max_age_s)) is not None:
            return cached.get(job)
        asked = time.time()
        found = _ask_times(job)
        shared = {"asked": asked, "of": array_job_id(job), "times": {k: asdict(v) for k, v in found.items()}}
        with suppress(OSError):
            write_atomic(file, json.dumps(shared) + "\n")
        return found.get(job)
    return _ask_times(job).get(job)


def _read_times(file: Path, of: str, *, max_age_s: float) -> dict[str, JobTimes] | None:
    shared = optional_object(file)
    with suppress(KeyError, TypeError, AttributeError):  # damaged
        if shared is not None and shared["of"] == of and 0 <= time.time() - shared["asked"] < max_age_s:
            return {id_: JobTimes(**times) for id_, times in shared["times"].items()}
    return None


def _ask_times(job: str) -> dict[str, JobTimes]:
    """The times of a job or of its array's elements by id; empty where no command answers."""
    number = array_job_id(job)
    for ask in (partial(_lines_of_squeue, [number], _TIMES), partial(_lines_of_scontrol, number)):
        try:
            return {id_: times for id_, *fields in ask() if (times := _times(*fields)) is not None}
        except (CommandMissing, UnreadableAnswer):
            continue
        except ClusterError:
            break
    return {}


_TIMES = {"%i": "JOBID", "%S": "START_TIME", "%l": "TIME_LIMIT", "%e": "END_TIME"}
_ENDS = {"%i": "JOBID", "%T": "STATE", "%e": "END_TIME"}


def _lines_of_squeue(jobs: Sequence[str], columns: Mapping[str, str]) -> Sequence[Sequence[str]]:
    return query_squeue(jobs, columns, is_row=_is_job, answer_s=ANSWER_S).rows


def _is_job(cells: tuple[str, ...]) -> bool:
    return bool(JOB_ID.fullmatch(cells[0]))


def _lines_of_scontrol(job: str) -> list[list[str]]:
    found = []
    for line in run_command(["scontrol", "show", "job", "-o", job], answer_s=ANSWER_S).splitlines():
        fields = scontrol_fields(line)
        element = fields.get("ArrayTaskId")
        id_ = f"{fields.get('ArrayJobId')}_{element}" if element else fields.get("JobId", "")
        found.append([id_, *(fields.get(name, "") for name in ("StartTime", "TimeLimit", "EndTime"))])
    return found


def _times(start: str, limit: str, end: str) -> JobTimes | None:
    ends, starts = unix_time(end), unix_time(start)
    if ends is None:
        return None
    limit_s = float(seconds(limit)) if re.fullmatch(TIME, limit) else None
    early = starts is not None and limit_s is not None and ends < starts + limit_s - _TOLERANCE_S
    return JobTimes(end=ends, limit_s=limit_s, preempted=early)


def unix_time(text: str) -> float | None:
    """A time as Slurm prints it (2026-06-01T12:00:00, local), in Unix seconds; None for `Unknown` and `N/A`."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def query_ends(ids: Sequence[str]) -> dict[str, tuple[str, float]]:
    """State and end, in Unix seconds, of the jobs and elements that have ended, as far as squeue and sacct know them.

    A waiting array that was cancelled as a whole may stand there under its job's number alone. An element that was
    cancelled alone, before it started, is in neither.
    """
    found: dict[str, tuple[str, float]] = {}
    jobs, header = array_job_ids(ids), ("JobID", "State", "End")
    sacct = ["sacct", "-P", "-X", "-j", ",".join(jobs), "-o", ",".join(header)]
    lines: list[Sequence[str]] = []
    with suppress(ClusterError):
        lines += query_table(sacct, header, is_row=_is_job, answer_s=ANSWER_S).rows
    with suppress(ClusterError):
        lines += _lines_of_squeue(jobs, _ENDS)
    for name, state, end in lines:
        ended = unix_time(end)
        if ended is not None and state:
            found |= {id_: (state.split()[0].rstrip("+"), ended) for id_ in expand_ids(name)}
    return found

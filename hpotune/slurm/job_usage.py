"""What a study's jobs used (memory, time, energy), by sacct; kept in jobs/JOB/usage.json once the jobs have ended.

Accounting forgets, so the follow-up records it. A cluster without accounting has no such numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from hpotune.config.json_file import optional_object
from hpotune.errors import ClusterError
from hpotune.records.jobs import JobUsage
from hpotune.slurm.command_tables import JOB_ID, STATE, Row, query_table
from hpotune.slurm.job_arrays import array_job_id, array_job_ids
from hpotune.slurm.study_jobs import slurm_job_ids, submitted_jobs
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder

FIELDS = ("JobID", "State", "ElapsedRaw", "MaxRSS", "AllocTRES", "ConsumedEnergyRaw")
ANSWER_S = 30.0
J_PER_WH = 3600.0
_NOT_MEASURED = 2**32 - 2
"""NO_VAL of Slurm: its energy plugins give it where a node has no sensor."""
_RSS = re.compile(r"([0-9.]+)([KMGT]?)")
_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def record_usage(folder: StudyFolder) -> None:
    """Write usage.json for every job whose elements have all ended and that has none yet. Errors leave it for later."""
    jobs = [job for job in submitted_jobs(folder) if not job.hq_name]
    missing = {job.id: job.count for job in jobs if not usage_file(folder, job.id).exists()}
    with suppress(ClusterError, OSError):
        found = query_usage(list(missing))
        for job, count in missing.items():
            own = [one for one in found if array_job_id(one.id) == job]
            if len(own) >= count and all(one.ended for one in own):
                text = json.dumps({one.id: asdict(one) for one in own}, indent=1)
                write_atomic(usage_file(folder, job), text + "\n")


def study_usage(folder: StudyFolder) -> dict[str, JobUsage]:
    """The usage of the study's jobs by id: as recorded, else as sacct says now; nothing of a job that neither knows."""
    jobs = slurm_job_ids(folder)
    recorded = {one.id: one for job in jobs for one in _read_usage(usage_file(folder, job))}
    known = set(map(array_job_id, recorded))
    with suppress(ClusterError):
        recorded |= {one.id: one for one in query_usage([job for job in jobs if job not in known])}
    return recorded


def query_usage(jobs: Sequence[str]) -> list[JobUsage]:
    """What sacct knows of these jobs, an entry for each job or element of an array.

    Raises: ClusterError where sacct is missing, does not answer, or has no accounting.
    """
    if not jobs:
        return []
    command = ["sacct", "-P", "-j", ",".join(array_job_ids(jobs)), "-o", ",".join(FIELDS)]
    return usage_of_rows(query_table(command, FIELDS, is_row=_is_row, answer_s=ANSWER_S).rows)


def usage_of_rows(rows: Iterable[Row]) -> list[JobUsage]:
    """The usage of each job: its own line, with the highest memory of the lines of its steps (12.batch, 12.0)."""
    found: dict[str, JobUsage] = {}
    for name, state, elapsed, rss, tres, energy in rows:
        job, _, step = name.partition(".")
        before = found.get(job, JobUsage(id=job, state=""))
        highest = [value for value in (before.max_rss_gb, _gigabytes(rss)) if value is not None]
        found[job] = replace(before, max_rss_gb=max(highest, default=None))
        if not step:
            found[job] = replace(
                found[job],
                state=state.split()[0].rstrip("+"),
                elapsed_s=int(elapsed) if elapsed.isdecimal() else None,
                tres=tres,
                energy_wh=_watt_hours(energy),
            )
    return [one for one in found.values() if one.state]


def usage_file(folder: StudyFolder, job: str) -> Path:
    """Where the usage of a job's elements is kept."""
    return folder.jobs / job / "usage.json"


def _read_usage(file: Path) -> list[JobUsage]:
    with suppress(TypeError):
        return [JobUsage(**one) for one in (optional_object(file) or {}).values()]
    return []


def _is_row(cells: Row) -> bool:
    """Whether a line is of a job or a step that has a state."""
    return bool(JOB_ID.fullmatch(cells[0].partition(".")[0]) and STATE.fullmatch(cells[1]))


def _gigabytes(text: str) -> float | None:
    found = _RSS.fullmatch(text)
    return float(found[1]) * _BYTES[found[2]] / 1e9 if found else None


def _watt_hours(joules: str) -> float | None:
    """The energy; None for 0, which clusters without sensors report."""
    value = int(joules) if joules.isdecimal() else 0
    return value / J_PER_WH if 0 < value < _NOT_MEASURED else None

"""Why a job's worker could not start: its environment was removed or changed while it waited. Reads ends of logs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hpotune.records.jobs import JobRow
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.heartbeat import heartbeat_file

LOOKED_AT = 4
"""Logs that are read for one status: the jobs of an array fail alike."""
READ_BYTES = 20_000
_ENDED_BADLY = ("FAILED", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY")
_WRITTEN_BY = re.compile(
    r"^(slurmstepd\S*: |srun: )(error: )?(execve\(\): )?|^\S*slurm_script: (line \d+: )?|^\S+: line \d+: "
)
_CAUSE = re.compile(
    r"^\S.*: (No such file or directory|Permission denied|command not found|cannot execute.*|Exec format error)$|"
    r"^(ModuleNotFoundError|ImportError): |error while loading shared libraries: "
)


def start_failures(folder: StudyFolder, jobs: Sequence[JobRow]) -> dict[str, str]:
    """By job id: why its worker could not start, for jobs that failed without a heartbeat.

    One log is read for the elements of an array that ended with one exit code, at most LOOKED_AT.
    """
    failed = [job for job in jobs if job.state in _ENDED_BADLY and job.kind in ("worker", "follow-up")]
    alike: dict[tuple[str, str], list[str]] = {}
    for job in reversed(failed):
        if not heartbeat_file(folder, job.id).exists():
            alike.setdefault((job.id.partition("_")[0], job.exit_code), []).append(job.id)
    found: dict[str, str] = {}
    for ids in list(alike.values())[:LOOKED_AT]:
        if cause := start_failure(folder, ids[-1]):
            found |= {id_: start_sentence(cause, job=ids[-1]) for id_ in ids}
    return found


def latest_start_failure(folder: StudyFolder) -> str:
    """Why the worker of the study's latest job could not start; empty where one started, or nothing is known."""
    numbers = [path.parent.name for path in folder.jobs.glob("*/job.json") if path.parent.name.isdecimal()]
    for number in sorted(numbers, key=int, reverse=True)[:LOOKED_AT]:
        if any((folder.jobs / number).glob("life-*.json")):
            return ""
        if cause := start_failure(folder, f"{number}_0"):
            return start_sentence(cause, job=f"{number}_0")
    return ""


def start_failure(folder: StudyFolder, job: str) -> str:
    """Why the job's worker could not start, by the last lines of its log; empty where they do not say."""
    number = job.partition("_")[0]
    for path in sorted((folder.jobs / number).glob(f"{job}_*log.out")):
        lines = [line.strip() for line in text_end(path, READ_BYTES).splitlines()]
        for line in reversed(lines):  # what the last command ran into, not what a setup line said before
            cause = _WRITTEN_BY.sub("", line)
            if _CAUSE.search(cause):
                return cause[:300]
    return ""


def text_end(path: Path, most: int) -> str:
    """The end of a log, at most so many bytes; empty where it cannot be read."""
    try:
        if not path.is_file():  # a pipe would be waited for without end
            return ""
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - most))
            return log.read(most).decode("utf-8", errors="replace")
    except OSError:
        return ""


def start_sentence(cause: str, *, job: str) -> str:
    """`cause` as a sentence with the next step."""
    return f"its worker could not start: {cause} (was `env` changed since?); see `hpotune logs STUDY --job {job}`"

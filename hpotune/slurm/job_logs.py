"""The log files of a job: those of hpotune's own job scripts, and where Slurm says that a hand-written one writes."""

from __future__ import annotations

import re
from pathlib import Path

from hpotune.config.json_file import optional_object
from hpotune.errors import ClusterError
from hpotune.records.trial import LOCAL
from hpotune.slurm.commands import limited_time, run_command
from hpotune.workspace.folder import StudyFolder

ANSWER_S = 10.0
"""Seconds that Slurm may take to say where a job writes."""
JOB = re.compile(r"\d{1,12}(_\d{1,9})?", re.ASCII)
_FILE = re.compile(r"(?:^|\s)Std(?:Out|Err)=(\S.*?)(?=\s+\w+=|$)")


def job_logs(folder: StudyFolder, job: str) -> list[Path]:
    """The existing logs of a job, of one element (`12_3`), or of the workers outside Slurm (`local`), by element.

    Sources: the study's folder, `scontrol show job`, and for jobs that the controller has forgotten Slurm's default
    name `slurm-JOB.out` in their folder, by sacct.
    """
    if job == LOCAL:
        return sorted(filter(Path.is_file, (folder.jobs / LOCAL).glob("worker-*.log")), key=_element)
    if not JOB.fullmatch(job):
        return []
    number, _, element = job.partition("_")
    own = filter(Path.is_file, (folder.jobs / number).glob(f"{number}_{element or '*'}_*log.out"))
    found = sorted(own, key=_element)
    if found or (optional_object(folder.jobs / number / "job.json") or {}).get("hq_name"):
        return found
    return sorted(filter(Path.is_file, _by_slurm(job)), key=_element)


def _element(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", path.name)[:4])


def _by_slurm(job: str) -> list[Path]:
    with limited_time(ANSWER_S):
        return _from_scontrol(job) or _from_sacct(job)


def _from_scontrol(job: str) -> list[Path]:
    """Where a job that the controller knows writes; an array as a whole is shown by elements."""
    try:
        text = run_command(["scontrol", "show", "job", "-o", job])
    except ClusterError:
        return []
    found = [name for line in text.splitlines() for name in _FILE.findall(line)]
    return [Path(name) for name in dict.fromkeys(found) if name.startswith("/")]


def _from_sacct(job: str) -> list[Path]:
    """Slurm's default log in the folder from which a job was submitted."""
    try:
        text = run_command(["sacct", "-n", "-P", "-X", "-j", job, "-o", "JobID,WorkDir"])
    except ClusterError:
        return []
    rows = [line.partition("|") for line in text.splitlines()]
    return [Path(folder, f"slurm-{id_}.out") for id_, _, folder in rows if JOB.fullmatch(id_) and folder]

"""The sign of life that a job leaves in the study's folder, for clusters where nobody can be asked about it.

jobs/<id>/life-<ELEMENT>.json: begun and ended by the job's worker; the file's time is its last sign. A job that is no
array has the element 0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hpotune.records.trial import LOCAL, Worker
from hpotune.workspace.folder import StudyFolder, write_atomic


@dataclass(frozen=True, kw_only=True, slots=True)
class Life:
    """One job element, told by itself."""

    start: float
    """Unix seconds, by the worker's clock."""
    end: float | None
    """Of its orderly end; None: there was none yet."""
    sign: float
    """Its last sign of life, in Unix seconds by the file system's clock."""
    host: str
    pid: int


def life_file(folder: StudyFolder, job: str) -> Path:
    """Where the element of a job signs."""
    number, _, element = job.partition("_")
    return folder.jobs / number / f"life-{element or '0'}.json"


def begin(folder: StudyFolder, me: Worker, *, now: float) -> None:
    """Signs that the worker's job has started (again, after a requeue); nothing outside Slurm.

    Raises: OSError where the folder cannot be written.
    """
    if me.job != LOCAL:
        _write(folder, me, {"start": now, "host": me.host, "pid": me.pid})


def beat(folder: StudyFolder, me: Worker) -> None:
    """Renews the sign; a disk that is away for a moment is no error."""
    if me.job != LOCAL:
        with suppress(OSError):
            os.utime(life_file(folder, me.job))


def end(folder: StudyFolder, me: Worker, *, now: float) -> None:
    """Signs the orderly end, unless another worker of the same job has signed since."""
    if me.job == LOCAL:
        return
    found = read(folder, me.job)
    if found is not None and (found.host, found.pid) == (me.host, me.pid):
        with suppress(OSError):
            _write(folder, me, {"start": found.start, "host": me.host, "pid": me.pid, "end": now})


@contextmanager
def signed(folder: StudyFolder, me: Worker, *, clock: Callable[[], float]) -> Iterator[None]:
    """Signs the begin and the end of what needs no beat between: a follow-up step. A full disk costs the sign only."""
    with suppress(OSError):
        begin(folder, me, now=clock())
    try:
        yield
    finally:
        end(folder, me, now=clock())


def read(folder: StudyFolder, job: str) -> Life | None:
    """What the element of a job has signed; None before it began, or where the file cannot be read."""
    path = life_file(folder, job)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        sign = path.stat().st_mtime
        return Life(start=told["start"], end=told.get("end"), sign=sign, host=told["host"], pid=told["pid"])
    except (OSError, ValueError, KeyError):
        return None


def _write(folder: StudyFolder, me: Worker, told: dict[str, float | int | str]) -> None:
    write_atomic(life_file(folder, me.job), json.dumps(told) + "\n")

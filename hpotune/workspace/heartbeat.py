"""The heartbeat that a worker leaves in the study's folder, so that a job's state is known where Slurm cannot be asked.

jobs/<id>/life-<ELEMENT>.json holds one array element: written when its worker starts, written again when it ends; the
file's modification time is the last heartbeat. A job that is no array has the element 0. (The name life-N.json and
its keys stay as they are: earlier studies hold such files.) The heartbeat of a running trial is in the storage.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hpotune.config.json_file import DamagedFileError, decoding, read_object
from hpotune.records.trial import LOCAL, Worker
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class HeartbeatRecord:
    """What the worker of one job element has written."""

    start: float
    """Unix seconds, by the worker's clock."""
    end: float | None
    """When it ended by itself, by the worker's clock; None: it runs, or it was killed."""
    last_beat: float
    """Of its last heartbeat, in Unix seconds by the file system's clock."""
    host: str
    pid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    """The heartbeat of one worker. Outside Slurm nothing is written: the process itself can be looked up."""

    folder: StudyFolder
    worker: Worker

    def start(self, *, now: float) -> None:
        """Record that the worker's job has started (again, after a requeue).

        Raises: OSError where the folder cannot be written.
        """
        self._write({"start": now, "host": self.worker.host, "pid": self.worker.pid})

    def renew(self) -> None:
        """Set the time of the last heartbeat to now. A disk that does not answer is ignored: the next renewal comes."""
        if self.worker.job != LOCAL:
            with suppress(OSError):
                os.utime(heartbeat_file(self.folder, self.worker.job))

    def end(self, *, now: float) -> None:
        """Record that the worker ended by itself, unless another worker of the same job has started since."""
        found = None if self.worker.job == LOCAL else read_heartbeat(self.folder, self.worker.job)
        if found is not None and (found.host, found.pid) == (self.worker.host, self.worker.pid):
            with suppress(OSError):
                self._write({"start": found.start, "host": found.host, "pid": found.pid, "end": now})

    @contextmanager
    def recorded(self, *, clock: Callable[[], float]) -> Iterator[None]:
        """Record start and end of a short job without renewals (the follow-up); ignores a full disk."""
        with suppress(OSError):
            self.start(now=clock())
        try:
            yield
        finally:
            self.end(now=clock())

    def _write(self, record: dict[str, float | int | str]) -> None:
        if self.worker.job != LOCAL:
            write_atomic(heartbeat_file(self.folder, self.worker.job), json.dumps(record) + "\n")


def heartbeat_file(folder: StudyFolder, job: str) -> Path:
    """Where the heartbeat of a job, or of an array's element (`12_3`), is stored."""
    number, _, element = job.partition("_")
    return folder.jobs / number / f"life-{element or '0'}.json"


def read_heartbeat(folder: StudyFolder, job: str) -> HeartbeatRecord | None:
    """The heartbeat of a job or an array's element; None before it started, or where the file cannot be read."""
    path = heartbeat_file(folder, job)
    with suppress(DamagedFileError), decoding(path, next_step=""):
        record = read_object(path, next_step="")
        end = record.get("end")
        return HeartbeatRecord(
            start=float(record["start"]),
            end=None if end is None else float(end),
            last_beat=path.stat().st_mtime,
            host=str(record["host"]),
            pid=int(record["pid"]),
        )
    return None

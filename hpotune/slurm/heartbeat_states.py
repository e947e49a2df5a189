"""States of jobs by what they leave in the study's folder: where none of Slurm's commands can be asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from hpotune.records.jobs import JobRow
from hpotune.records.trial import TrialRow
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.heartbeat import read_heartbeat

JobMark = Literal["ended", "cancelled"]
_NOT_SEEN = "not seen yet; Slurm's commands are not here to ask"


def states_from_heartbeats(
    folder: StudyFolder, trials: Sequence[TrialRow], ids: Sequence[str], *, lease_s: float
) -> dict[str, JobRow]:
    """A row for every id. `lease_s`: how long a job without a sign of life is taken to live."""
    beats: dict[str, float] = {}
    for row in trials:
        if row.state == "running" and row.worker:
            said = row.beat or row.start or 0.0
            beats[row.worker.job] = max(said, beats.get(row.worker.job, 0.0))
    now = time.time()
    return {id_: _row(folder, id_, beat=beats.get(id_), now=now, lease_s=lease_s) for id_ in ids}


def _row(folder: StudyFolder, id_: str, *, beat: float | None, now: float, lease_s: float) -> JobRow:
    life = read_heartbeat(folder, id_)
    signs = [sign for sign in (beat, life.sign if life else None) if sign is not None]
    last = max(signs, default=None)
    ended, cancelled = _marked(folder, id_, "ended"), _marked(folder, id_, "cancelled")
    if ended is not None and (last is None or ended >= last):
        state = "COMPLETED" if life and life.end is not None and beat is None else "GONE"
        return JobRow(id=id_, state=state)
    if last is None:
        return (
            JobRow(id=id_, state="CANCELLED")
            if cancelled
            else JobRow(id=id_, state="PENDING", reason=_NOT_SEEN)
        )
    # A live trial counts more than an end: several workers may share a job that somebody wrote by hand.
    if beat is not None and now - beat <= lease_s:
        return JobRow(id=id_, state="RUNNING")
    if life and life.end is not None:
        return JobRow(id=id_, state="COMPLETED")
    if now - last <= lease_s:
        return JobRow(id=id_, state="RUNNING")
    return JobRow(id=id_, state="GONE", reason=f"no sign of life for {now - last:.0f} s")


def mark_jobs(folder: StudyFolder, ids: Sequence[str], how: JobMark) -> None:
    """Leaves in the folder that Slurm has told the end of jobs or elements, or was told to cancel them."""
    for id_ in ids:
        job, _, element = id_.partition("_")
        path = folder.jobs / job / (f"{how}-{element}" if element else how)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _marked(folder: StudyFolder, id_: str, how: JobMark) -> float | None:
    """When the element or its whole job was marked so, in Unix seconds by the file system's clock."""
    job, _, element = id_.partition("_")
    found = []
    for name in (how, f"{how}-{element}"):
        with suppress(OSError):
            found.append((folder.jobs / job / name).stat().st_mtime)
    return max(found, default=None)

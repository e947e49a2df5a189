"""States of jobs by the heartbeats in the study's folder, for clusters where Slurm cannot be asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from hpotune.records.jobs import JobRow
from hpotune.records.trial import TrialRow
from hpotune.workspace.atomic_files import touch
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.heartbeat import read_heartbeat

JobMark = Literal["ended", "cancelled", "replaced"]
"""replaced: hpotune cancelled it because Slurm held it after failed launches."""
_NOT_SEEN = "not seen yet; Slurm's commands are not installed here"


def states_from_heartbeats(
    folder: StudyFolder, trials: Sequence[TrialRow], ids: Sequence[str], *, lease_s: float
) -> dict[str, JobRow]:
    """A row for every id. `lease_s`: seconds for which a job counts as running after its last heartbeat."""
    heartbeats: dict[str, float] = {}
    for row in trials:
        if row.state == "running" and row.worker:
            latest = row.last_heartbeat or row.start or 0.0
            heartbeats[row.worker.job] = max(latest, heartbeats.get(row.worker.job, 0.0))
    now = time.time()
    return {id_: _row(folder, id_, trial_beat=heartbeats.get(id_), now=now, lease_s=lease_s) for id_ in ids}


def _row(folder: StudyFolder, id_: str, *, trial_beat: float | None, now: float, lease_s: float) -> JobRow:
    heartbeat = read_heartbeat(folder, id_)
    known = [time_ for time_ in (trial_beat, heartbeat.last_beat if heartbeat else None) if time_ is not None]
    last = max(known, default=None)
    ended, cancelled = _marked(folder, id_, "ended"), _marked(folder, id_, "cancelled")
    if ended is not None and (last is None or ended >= last):
        signed_off = heartbeat is not None and heartbeat.end is not None and trial_beat is None
        state = "COMPLETED" if signed_off else "GONE"
        return JobRow(id=id_, state=state)
    if last is None:
        return (
            JobRow(id=id_, state="CANCELLED")
            if cancelled
            else JobRow(id=id_, state="PENDING", reason=_NOT_SEEN)
        )
    # A running trial counts more than a sign-off: several workers may share a hand-written job.
    if trial_beat is not None and now - trial_beat <= lease_s:
        return JobRow(id=id_, state="RUNNING")
    if heartbeat and heartbeat.end is not None:
        return JobRow(id=id_, state="COMPLETED")
    if now - last <= lease_s:
        return JobRow(id=id_, state="RUNNING")
    return JobRow(id=id_, state="GONE", reason=f"no heartbeat for {now - last:.0f} s")


def mark_jobs(folder: StudyFolder, ids: Sequence[str], how: JobMark) -> None:
    """Record in the folder that jobs or elements have ended (reported by Slurm), were cancelled or replaced."""
    for id_ in ids:
        job, _, element = id_.partition("_")
        path = folder.jobs / job / (f"{how}-{element}" if element else how)
        touch(path)


def is_replaced(folder: StudyFolder, id_: str) -> bool:
    """Whether hpotune cancelled the job or element because Slurm held it."""
    return _marked(folder, id_, "replaced") is not None


def _marked(folder: StudyFolder, id_: str, how: JobMark) -> float | None:
    """When the element or its whole job was marked, in Unix seconds by the file system's clock."""
    job, _, element = id_.partition("_")
    found = []
    for name in (how, f"{how}-{element}"):
        with suppress(OSError):
            found.append((folder.jobs / job / name).stat().st_mtime)
    return max(found, default=None)

"""What the cluster says of a study's jobs, asked at most every 30 s for those who only look.

The last answer lies in the study's folder (jobs/.queue.json), so that all readers share it. No loop, no submitit.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hpotune.errors import ClusterError, StudyFileError
from hpotune.records.trial import LOCAL, Cause, Failure, TrialRow, Worker
from hpotune.schedule.next_jobs import JobRow
from hpotune.slurm.commands import ask
from hpotune.slurm.heartbeat_states import life_rows, mark
from hpotune.slurm.job_states import told
from hpotune.workspace.folder import StudyFolder, write_atomic
from hpotune.workspace.lock import alone

POLL_S = 30.0
"""How old an answer may be for who only looks; HPOTUNE_POLL_S sets another age, 0: always ask."""
LEASE_S = 300.0
_CAUSES: dict[str, Cause] = {
    "TIMEOUT": "timeout",
    "PREEMPTED": "preempted",
    "OUT_OF_MEMORY": "oom",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """An answer of the cluster, perhaps somebody else's."""

    rows: tuple[JobRow, ...]
    """UNKNOWN where it was silent."""
    age_s: float = 0.0
    """Seconds since it was asked."""
    silent: str = ""
    """Why it gave no answer."""


def recorded_jobs(folder: StudyFolder) -> list[dict[str, Any]]:
    """Every submission of the study, oldest first."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.jobs.glob("*/job.json")]
    return sorted(found, key=lambda job: int(job["id"]))


def job_rows(
    folder: StudyFolder,
    trials: Sequence[TrialRow],
    *,
    lease_s: float = LEASE_S,
    ended: Sequence[str] = (),
) -> list[JobRow]:
    """Every job element of the study as the cluster tells it now.

    Jobs that hpotune did not submit (an sbatch file written by hand) are known by the trials they run: kind `own`.
    `ended`: jobs that Slurm has told to have ended, by starting what depends on them. `lease_s` counts where none of
    Slurm's commands is here: seconds without a sign of life after which a job is gone.

    Raises: ClusterError when Slurm does not answer.
    """
    with suppress(OSError):
        mark(folder, ended, "ended")
    kinds, asked = _kinds(folder, trials), time.time()
    try:
        found = told(list(kinds), life=partial(life_rows, folder, trials, lease_s=lease_s))
    except ClusterError as error:
        _remember(folder, asked, [], silent=str(error))
        raise
    rows = [replace(found[id_], kind=kind) for id_, kind in kinds.items()]
    _remember(folder, asked, rows)
    return rows


def rows_or_unknown(folder: StudyFolder, trials: Sequence[TrialRow], *, lease_s: float = LEASE_S) -> Queue:
    """The same for those who only look: an answer that is young enough, or a new one; never an error."""
    kinds = _kinds(folder, trials)
    if held := _remembered(folder, kinds):
        return held
    with _one_asks(folder):
        if held := _remembered(folder, kinds):  # another reader has just asked
            return held
        try:
            return Queue(rows=tuple(job_rows(folder, trials, lease_s=lease_s)))
        except ClusterError as error:
            return Queue(rows=_unknown(kinds), silent=str(error))


def forget(folder: StudyFolder) -> None:
    """Drops the last answer: what was submitted or cancelled just now changes it."""
    with suppress(OSError):
        _file(folder).unlink(missing_ok=True)


def poll_s() -> float:
    """The age in seconds up to which an answer serves.

    Raises: StudyFileError where HPOTUNE_POLL_S is no number.
    """
    said = os.environ.get("HPOTUNE_POLL_S", "")
    try:
        return float(said) if said else POLL_S
    except ValueError:
        raise StudyFileError(f"HPOTUNE_POLL_S={said!r}: needs a number of seconds, such as 30") from None


def _file(folder: StudyFolder) -> Path:
    return folder.jobs / ".queue.json"


def _remember(folder: StudyFolder, asked: float, rows: Sequence[JobRow], *, silent: str = "") -> None:
    """Keeps the answer; whoever may not write here asks anew each time."""
    if not folder.jobs.is_dir():
        return
    answer = {"asked": asked, "silent": silent, "rows": [asdict(row) for row in rows]}
    with suppress(OSError):
        write_atomic(_file(folder), json.dumps(answer) + "\n")


def _remembered(folder: StudyFolder, kinds: dict[str, str]) -> Queue | None:
    """The last answer where it is young and knows every job that hpotune has submitted."""
    try:
        answer = json.loads(_file(folder).read_text(encoding="utf-8"))
        age_s, silent = time.time() - answer["asked"], answer["silent"]
        held = {row["id"]: JobRow(**row) for row in answer["rows"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not -1.0 <= age_s < poll_s():  # a clock that is ahead would keep an answer for ever
        return None
    if silent:
        return Queue(rows=_unknown(kinds), age_s=max(0.0, age_s), silent=silent)
    if any(id_ not in held and kind != "own" for id_, kind in kinds.items()):
        return None
    # jobs that somebody wrote by hand are found by their trials, which change more often than this answer
    rows = [held.get(id_) or JobRow(id=id_, state="UNKNOWN", kind=kind) for id_, kind in kinds.items()]
    return Queue(rows=tuple(rows), age_s=max(0.0, age_s))


@contextmanager
def _one_asks(folder: StudyFolder) -> Iterator[None]:
    """One reader asks, the others wait for its answer; without the right to write here each asks by itself."""
    if not os.access(folder.jobs, os.W_OK):
        yield
        return
    with alone(folder.jobs / ".queue.lock"):
        yield


def _unknown(kinds: dict[str, str]) -> tuple[JobRow, ...]:
    return tuple(JobRow(id=id_, state="UNKNOWN", kind=kind) for id_, kind in kinds.items())


def _kinds(folder: StudyFolder, trials: Sequence[TrialRow]) -> dict[str, str]:
    """Every job element that the study knows of, by id: worker, step or own."""
    kinds = {
        f"{job['id']}_{index}": job["kind"] for job in recorded_jobs(folder) for index in range(job["count"])
    }
    running = [row.worker.job for row in trials if row.state == "running" and row.worker]
    return kinds | {id_: "own" for id_ in running if id_ != LOCAL and id_ not in kinds}


def dead_jobs(rows: Sequence[JobRow]) -> Callable[[Worker], Failure | None]:
    """Tells the death of workers whose job has ended; says nothing of jobs that the cluster does not know."""
    by_id = {row.id: row for row in rows}

    def dead(worker: Worker) -> Failure | None:
        row = by_id.get(worker.job)
        if row is None or row.live or row.state == "UNKNOWN":
            return None
        said = (
            (f"gave {row.reason}" if row.reason else "has left the queue")
            if row.state == "GONE"
            else f"ended as {row.state} (exit {row.exit_code or 'unknown'})"
        )
        return Failure(
            cause=_CAUSES.get(row.state, "killed"), message=f"its job {row.id} {said} on {worker.host}"
        )

    return dead


def cancel_jobs(folder: StudyFolder, ids: Sequence[str]) -> None:
    """Ends waiting and running jobs.

    Raises: ClusterError when Slurm does not answer.
    """
    if ids:
        ask(["scancel", *ids])
        with suppress(OSError):
            mark(folder, ids, "cancelled")
        forget(folder)

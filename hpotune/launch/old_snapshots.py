"""Removes the code snapshots that nothing needs any more, when a study is prepared again.

Kept are: the newest; those of jobs that are not known to have ended, and of submissions that are still open; those of
workers that run; those of trials that have not ended. Where it is not known which one a job runs, all are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hpotune.config.json_file import optional_object, read_regular
from hpotune.errors import ClusterError, HpotuneError
from hpotune.records.jobs import ENDED_STATES, JobRow
from hpotune.records.trial import LOCAL, TrialRow
from hpotune.slurm.job_arrays import array_job_id
from hpotune.slurm.job_states import query_states
from hpotune.slurm.study_jobs import cached_jobs, submitted_jobs
from hpotune.slurm.submission import open_submissions
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import try_exclusive_lock
from hpotune.workspace.snapshot_users import (
    clear_removed,
    newest_snapshot,
    remove_snapshot,
    snapshot_names,
    snapshot_users,
)

if TYPE_CHECKING:
    from hpotune.storage import TrialQueue


def remove_old_snapshots(folder: StudyFolder, store: TrialQueue) -> list[str]:
    """Remove them, and return their names. Only while this process holds the study's preparation lock.

    Nothing is removed while jobs are being submitted, or where the study's jobs cannot be read; nor is it an error.
    """
    newest = newest_snapshot(folder)
    old = set(snapshot_names(folder)) - {newest}
    if newest is None or not (old or any(folder.path.glob("code/.removed-*"))):
        return []
    with suppress(HpotuneError, OSError), try_exclusive_lock(folder.jobs / ".lock", what="a submission"):
        kept = _needed(folder, store.rows())
        if kept is None:
            return []
        clear_removed(folder, kept=kept | {newest})
        return [name for name in sorted(old - kept) if _remove(folder, name)]
    return []


def _remove(folder: StudyFolder, name: str) -> bool:
    def needed() -> bool:
        return name == newest_snapshot(folder) or any(user.code == name for user in snapshot_users(folder))

    return remove_snapshot(folder, name, needed=needed)


def _needed(folder: StudyFolder, rows: Sequence[TrialRow]) -> set[str] | None:
    """The snapshots that jobs, workers and trials need; None where that is not known."""
    jobs = [*_open_submissions(folder)]  # first: one that is recorded meanwhile is then among the jobs
    states = {row.id: row for row in cached_jobs(folder, rows).rows}
    active = {array_job_id(row.id) for row in states.values() if not _has_ended(row)}
    workers = [job.id for job in submitted_jobs(folder) if job.kind == "worker" and job.id in active]
    jobs += [_code_of_job(folder.jobs / id_) for id_ in workers]
    if None in jobs:
        return None
    return {code for code in (*jobs, *_codes_of_trials(folder, rows), *_codes_in_use(folder, states)) if code}


def _has_ended(row: JobRow) -> bool:
    """Whether Slurm says so; a job without heartbeats, where Slurm cannot be asked, may still run."""
    return row.state in ENDED_STATES or (row.state == "GONE" and not row.reason)


def _open_submissions(folder: StudyFolder) -> Iterator[str | None]:
    """The snapshots of submissions whose answer is not known yet."""
    for script in open_submissions(folder.jobs):
        yield _recorded_code(script.with_suffix(".json"), script)


def _code_of_job(folder: Path) -> str | None:
    return _recorded_code(folder / "job.json", folder / f"{folder.name}_submission.sh")


def _recorded_code(record: Path, script: Path) -> str | None:
    """The snapshot that a job runs; empty where it runs none, None where that is not known."""
    found = optional_object(record) or {}
    if "code" in found:
        return str(found["code"] or "")
    try:  # of an earlier version
        text = read_regular(script).decode(errors="replace")
    except OSError:
        return None
    match = re.search(r" --code ([0-9a-f]+)", text)
    return match[1] if match else ""


def _codes_of_trials(folder: StudyFolder, rows: Sequence[TrialRow]) -> Iterator[str]:
    """The snapshots that trials which run or were interrupted have been started with."""
    for row in rows:
        if not row.decided and row.state != "failed":
            spec = optional_object(folder.trial(row.number) / "spec.json") or {}
            yield str(spec.get("code") or "")


def _codes_in_use(folder: StudyFolder, states: dict[str, JobRow]) -> Iterator[str]:
    """The snapshots of workers that run, or may run; forgets those that have ended."""
    users = snapshot_users(folder)
    unknown = {user.job for user in users if user.runs is None} - {LOCAL, *states}
    # hand-written jobs may be of another cluster, which Slurm does not know here: only an end that it names counts
    foreign = {id_ for id_, row in _states_of(sorted(unknown)).items() if row.state in ENDED_STATES}
    ended = foreign | {id_ for id_, row in states.items() if _has_ended(row)}
    for user in users:
        if user.runs is False or (user.runs is None and user.job in ended):
            with suppress(OSError):
                user.file.unlink()
        else:
            yield user.code


def _states_of(jobs: Sequence[str]) -> dict[str, JobRow]:
    """What Slurm says of jobs that hpotune did not submit; empty where it does not answer."""
    try:
        return query_states(jobs, from_heartbeats=lambda _: {})
    except ClusterError:
        return {}

"""Stops the jobs and local workers of a study. Their trials wait again; finished trials are not changed."""

from __future__ import annotations

import os
import platform
import signal

from hpotune.errors import StoreError
from hpotune.launch.cancellation import mark_cancelled
from hpotune.records.trial import LOCAL
from hpotune.slurm.study_jobs import cancel_jobs, query_jobs
from hpotune.storage import TrialQueue, stale_on_host
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import exclusive_lock


def cancel_study(folder: StudyFolder, store: TrialQueue) -> list[str]:
    """Cancel every active job and ask local workers to end; returns what was stopped.

    A mark in the folder keeps follow-up jobs from submitting more; `submit` removes it.

    Raises: ClusterError when Slurm does not answer, StoreError when all is stopped but the mark cannot be written.
    """
    unmarked = None
    # a follow-up that submits now comes first, and its jobs are cancelled too
    with exclusive_lock(folder.jobs / ".lock"):
        try:
            mark_cancelled(folder, "`hpotune cancel`")
        except OSError as error:
            unmarked = error
        active = [row for row in query_jobs(folder, store.rows()) if row.active]
        # Of a hand-written array only the elements that run this study.
        cancel_jobs(
            folder,
            list(dict.fromkeys(row.id if row.kind == "own" else row.id.split("_")[0] for row in active)),
        )
    stopped = [*(row.id for row in active), *_stop_local(store)]
    if unmarked is not None:
        raise StoreError(
            f"{folder.cancelled}: cannot be written ({unmarked.strerror}), so a follow-up that runs now may submit "
            f"more jobs; stopped: {', '.join(stopped) or 'nothing was running'}; free space, then run "
            "`hpotune cancel` again"
        ) from unmarked
    return stopped


def _stop_local(store: TrialQueue) -> list[str]:
    stopped = []
    stale = stale_on_host(platform.node())
    for row in store.rows():
        worker = row.worker
        if (
            row.state != "running"
            or worker is None
            or worker.job != LOCAL
            or worker.host != platform.node()
            or stale(worker)
        ):
            continue
        try:
            os.kill(worker.pid, signal.SIGTERM)
        except (ProcessLookupError, PermissionError):  # it has just ended, or belongs to another user
            continue
        stopped.append(f"local worker {worker.pid} (trial {row.number})")
    return stopped

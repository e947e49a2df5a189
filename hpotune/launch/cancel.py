"""Stops what a study has running or waiting, on Slurm and on this machine.

Trials go back in line; nothing finished is touched.
"""

from __future__ import annotations

import os
import platform
import signal

from hpotune.records.trial import LOCAL
from hpotune.slurm.jobs import cancel_jobs, query_jobs
from hpotune.storage import Store, dead_here
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import exclusive_lock


def cancel_study(folder: StudyFolder, store: Store) -> list[str]:
    """Cancels every live job and asks local workers to end; returns what was stopped.

    A mark stays, so that a follow-up step that runs just now submits nothing either; `submit` takes it away.

    Raises: ClusterError when Slurm does not answer.
    """
    with exclusive_lock(
        folder.jobs / ".lock"
    ):  # a step that submits just now comes first, and its jobs are cancelled too
        folder.cancelled.touch()
        live = [row for row in query_jobs(folder, store.rows()) if row.active]
        # Of an array that somebody wrote by hand only the elements that run this study.
        cancel_jobs(
            folder, list(dict.fromkeys(row.id if row.kind == "own" else row.id.split("_")[0] for row in live))
        )
    return [*(row.id for row in live), *_stop_local(store)]


def _stop_local(store: Store) -> list[str]:
    stopped = []
    dead = dead_here(platform.node())
    for row in store.rows():
        worker = row.worker
        if (
            row.state != "running"
            or worker is None
            or worker.job != LOCAL
            or worker.host != platform.node()
            or dead(worker)
        ):
            continue
        try:
            os.kill(worker.pid, signal.SIGTERM)
        except (ProcessLookupError, PermissionError):  # it has just ended, or is a colleague's
            continue
        stopped.append(f"local worker {worker.pid} (trial {row.number})")
    return stopped

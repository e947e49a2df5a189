"""What the dead leave: who of this machine has died, and what lies in the folders of their trials."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hpotune.records.trial import LOCAL, Failure, TrialResult, TrialRow, Worker
from hpotune.workspace.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Remains:
    """What a trial's processes left behind."""

    result: TrialResult | None = None
    checkpoint: float | None = None
    """When it was written, in Unix seconds; None: there is none."""


Left = Callable[[int], Remains]
"""What the processes of a trial left, by its number."""


def dead_here(host: str) -> Callable[[Worker], Failure | None]:
    """Tells the death of local workers of this host; says nothing of others."""

    def dead(worker: Worker) -> Failure | None:
        if worker.job != LOCAL or worker.host != host or alive(worker.pid):
            return None
        return Failure(cause="killed", message=f"its worker (process {worker.pid} on {host}) died")

    return dead


def silent(lease_s: float, *, now: float | None = None) -> Callable[[TrialRow], Failure | None]:
    """Tells the death of workers that have given no sign of life for so long, by their own clocks against `now`."""

    def dead(row: TrialRow) -> Failure | None:
        last = max(row.beat or 0.0, row.start or 0.0)
        if (now or time.time()) - last <= lease_s:
            return None
        return Failure(cause="killed", message=f"its worker gave no sign of life for {lease_s:.0f} s")

    return dead


def alive(pid: int) -> bool:
    """Whether a worker of this machine has this number."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"hpotune" in command  # a number may have been given to another process since


def results_in(folder: StudyFolder) -> Left:
    """Reads what trials left in their folders: a result whose worker died, or lost the store, before it told it."""

    def left(number: int) -> Remains:
        own = folder.trial(number)
        result = None
        with suppress(OSError, ValidationError):
            result = TrialResult.model_validate_json((own / "result.json").read_bytes())
        return Remains(result=result, checkpoint=written(own / "checkpoint"))

    return left


def written(folder: Path) -> float | None:
    """When a folder's newest file was written, in Unix seconds; None where there is no file."""
    times = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # a writer moves it just now
            times.append(path.stat().st_mtime)
    return max(times, default=None)


def asked(failure: Failure) -> bool:
    """Whether somebody ended the job on purpose: no fault of the trial's, and none of the cluster's."""
    return failure.cause == "killed" and "CANCELLED" in failure.message

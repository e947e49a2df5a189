"""Stale workers of this machine or without a heartbeat, and the output that their trials left. Writes no trial."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hpotune.config.json_file import read_regular
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.records.trial import LOCAL, Failure, TrialResult, TrialRow, Worker
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import open_lock_file
from hpotune.workspace.timeline import log


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialOutput:
    """What the processes of a trial have left in its folder."""

    result: TrialResult | None = None
    checkpoint: float | None = None
    """When the checkpoint was written, in Unix seconds; None: there is none."""


REQUEUE_PATIENCE_S = 10.0
"""How long a process waits for another one that requeues trials, before it leaves them to the next look."""

OutputReader = Callable[[int], TrialOutput]
"""The output of a trial, by its number."""


@contextmanager
def requeue_lock(folder: StudyFolder) -> Iterator[bool]:
    """Keep other processes from requeuing trials while the body runs. Yields False where another one does so now.

    Of two that have seen the same stale worker, the second would release the trial again, from the worker that has
    claimed it meanwhile. A folder in which no lock can be created, on a full disk, goes without.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_lock_file(folder.jobs / ".requeue.lock"))
            until = time.monotonic() + REQUEUE_PATIENCE_S
            while not (held := file.try_lock()) and time.monotonic() < until:
                time.sleep(random.uniform(0.05, 0.2))
        except (HpotuneError, OSError):
            held = True
        yield held


def stale_on_host(host: str) -> Callable[[Worker], Failure | None]:
    """A function that says why a local worker of this host is stale; None for running ones and those elsewhere."""

    def stale_failure(worker: Worker) -> Failure | None:
        if worker.job != LOCAL or worker.host != host or is_worker_process(worker.pid):
            return None
        return Failure(
            cause="killed", message=f"its worker (process {worker.pid} on {host}) ended without a result"
        )

    return stale_failure


def lease_expired(lease_s: float, *, now: float | None = None) -> Callable[[TrialRow], Failure | None]:
    """A function that says why a trial's worker is stale: no heartbeat for so long; None for others.

    `now`: in Unix seconds, at each call the time then if None; heartbeats are in the workers' own clocks. For a process
    that looks once.
    """

    def stale_failure(row: TrialRow) -> Failure | None:
        last = max(row.last_heartbeat or 0.0, row.start or 0.0)
        if (now or time.time()) - last <= lease_s:
            return None
        return Failure(cause="killed", message=f"its worker sent no heartbeat for {lease_s:.0f} s")

    return stale_failure


class UnchangedHeartbeats:
    """Which workers' heartbeats have not changed for a lease while this process watched, by its own clock.

    Heartbeats are in the workers' clocks: where those of two nodes differ by more than the lease, `lease_expired` takes
    every worker of the other node for a stale one. Time in which this process did not look is not counted.
    """

    def __init__(self, lease_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_s = lease_s
        self._clock = clock
        self._seen: dict[tuple[int, Worker | None], tuple[float, float, float]] = {}
        """Trial and worker -> last heartbeat, seconds for which it was seen unchanged, time of the last look."""

    def stale_failure(self, row: TrialRow) -> Failure | None:
        """Why a trial's worker is stale, as `requeue_stale` asks; None: it is not, as far as was seen."""
        last, now, key = (
            max(row.last_heartbeat or 0.0, row.start or 0.0),
            self._clock(),
            (row.number, row.worker),
        )
        before, unchanged_s, looked = self._seen.get(key, (last, 0.0, now))
        unchanged_s = unchanged_s + min(now - looked, self._lease_s / 2) if last == before else 0.0
        self._seen[key] = (last, unchanged_s, now)
        if unchanged_s <= self._lease_s:
            return None
        return Failure(cause="killed", message=f"its worker sent no heartbeat for {self._lease_s:.0f} s")


def is_worker_process(pid: int) -> bool:
    """Whether a process of this number runs on this machine and is one of hpotune's."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"hpotune" in command  # the number may belong to another process by then


def output_reader(folder: StudyFolder) -> OutputReader:
    """A function that reads what trials left in their folders: results that a stale worker did not record.

    It logs, and returns nothing, where a trial's folder is another user's; a result that cannot be read is left out.
    """

    def read_output(number: int) -> TrialOutput:
        try:
            own = folder.trusted_trial(number)
        except StudyFileError as error:
            log(f"what trial {number} left is not read: {error}")
            return TrialOutput()
        result = None
        with suppress(OSError, ValidationError):
            result = TrialResult.model_validate_json(read_regular(own / "result.json"))
        return TrialOutput(result=result, checkpoint=newest_write(own / "checkpoint"))

    return read_output


def newest_write(folder: Path) -> float | None:
    """When a folder's newest file was written, in Unix seconds; None where there is no file."""
    times = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # its writer moves it at this moment
            times.append(path.stat().st_mtime)
    return max(times, default=None)

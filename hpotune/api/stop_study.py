"""Stops a study and its repeats, or waits for its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hpotune.api.call_messages import Line
from hpotune.api.opened_study import open_study
from hpotune.errors import StoreError, WaitTimeout
from hpotune.launch.cancel import cancel_study
from hpotune.reporting.advice import stop_advice
from hpotune.reporting.views.status import StudyStatus
from hpotune.reporting.watch import is_over, line
from hpotune.slurm.commands import SUBMIT_S, limited_time

IDLE_S = 600.0
"""Seconds without any job or worker after which nobody is expected to continue the study. Between a job and its
follow-up there is a moment without one, and `run` rehearses for up to ten minutes before it starts one."""
LEAST_S = 1.0


def stop_study(target: Path, chosen: Path | None, *, note: Line) -> list[str]:
    """Cancel the study's jobs and ask its local workers to end; returns what was stopped."""
    found, _, store = open_study(target, chosen, note=note)  # it changes no trial
    with limited_time(SUBMIT_S):
        stopped = cancel_study(found, store)
        if found.repeats.resolved_file.is_file():
            repeats, _, store = open_study(found.repeats.path, None, note=note)
            stopped += cancel_study(repeats, store)
    return stopped


def wait_for_end(
    read: Callable[[], StudyStatus],
    *,
    timeout: float | None,
    every_s: float,
    note: Line,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> StudyStatus:
    """Read the status until the study is over and nothing of it is active; the last one.

    It also returns where nothing has run for IDLE_S and trials are left: `outcome` says so.
    Raises: WaitTimeout after `timeout` seconds; StoreError when the first read fails, later ones are repeated.
    """
    started = clock()
    status = read()
    idle_since: float | None = None
    while not is_over(status):
        now = clock()
        if status.state != "idle":
            idle_since = None
        elif idle_since is None:
            idle_since = now
        elif now - idle_since >= IDLE_S:
            return status
        left = None if timeout is None else started + timeout - now
        if left is not None and left <= 0:
            raise WaitTimeout(
                f"{status.study}: has not ended after {timeout:g} s ({line(status)}); wait again, or see "
                f"`hpotune status {status.folder}`"
            )
        pause_s = max(LEAST_S, every_s)
        sleep(pause_s if left is None else min(pause_s, left))
        try:
            status = read()
        except StoreError as error:
            note(f"{error}; trying again")
    return status


def outcome(status: StudyStatus) -> str:
    """Why a study that `wait_for_end` returned has not reached its end; empty where it has."""
    if status.state == "idle":
        return (
            f"{status.study}: {status.trials.left} trials are left, and no job or worker runs them; "
            f"`hpotune resume {status.folder}` continues it"
        )
    if status.state == "cancelled":
        how = f" ({status.cancelled_by})" if status.cancelled_by else ""
        return f"{status.study}: was cancelled{how}; `hpotune resume {status.folder}` continues it"
    if status.stop is not None and status.stop.is_failure:
        return f"{status.study}: {status.stop.text}; next: {stop_advice(status.stop, status.folder)}"
    follow_on = [one for one in (status.repeats, status.opening) if one is not None]
    return next(filter(None, map(outcome, follow_on)), "")

"""One step of a study on Slurm: tell dead trials, submit what is missing, leave a step behind.

Running it twice changes nothing more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TypeVar

from hpotune.errors import ClusterError
from hpotune.launch.cancel import cancelled_mark
from hpotune.launch.dead import dead_anywhere
from hpotune.launch.lock import alone
from hpotune.launch.queue import job_rows, recorded_jobs
from hpotune.launch.slurm import max_array_size, split, submit
from hpotune.plan.next import JobRow, JobSpec, next_jobs
from hpotune.store import Store, results_in
from hpotune.study.config import StudyConfig
from hpotune.study.folder import StudyFolder

PATIENCE_S = 120
"""How long a follow-up job asks again when Slurm does not answer; its job may last ten minutes."""
PAUSE_S = 15
_AWAY = ("contact", "connect", "fetch config")
_SLOW = (*_AWAY, "no answer", "timed out")
"""For questions only: a job whose submission timed out may have been taken, and would be submitted twice."""
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What one step did."""

    submitted: tuple[str, ...] = ()
    """Job ids."""
    swept: tuple[int, ...] = ()
    """Trials told dead."""
    warning: str = ""
    """What of it did not succeed, or why nothing was submitted though trials are missing."""


def step(
    folder: StudyFolder, store: Store, config: StudyConfig, *, now: datetime, alone_at_work: bool = False
) -> Step:
    """Does what is due and returns it. `alone_at_work`: no user looks on (the follow-up job).

    Raises: ClusterError when Slurm does not answer or refuses the first job, and in a follow-up job when the jobs
    before took no trial at all: the next ones would do no better, and so on for ever.
    """
    patience_s = PATIENCE_S if alone_at_work else 0
    with alone(folder.jobs / ".lock"):  # so that two steps at once do not both submit
        rows = _patiently(lambda: job_rows(folder, store.rows()), seconds=patience_s, away=_SLOW)
        swept = tuple(store.sweep(dead_anywhere(rows), left=results_in(folder)))
        store.fill()
        if not alone_at_work:
            cancelled_mark(folder).unlink(missing_ok=True)
        due = next_jobs(config, store.rows(), rows, now=now)
        if due and alone_at_work:
            if stopped := _stopped_by_user(folder, rows):
                return Step(swept=swept, warning=stopped)
            _refuse_to_repeat(folder)
        ids, warning = _submit_all(folder, config, due, rows, patience_s=patience_s)
    return Step(submitted=tuple(ids), swept=swept, warning=warning)


def _submit_all(
    folder: StudyFolder,
    config: StudyConfig,
    due: Sequence[JobSpec],
    rows: Sequence[JobRow],
    *,
    patience_s: float,
) -> tuple[list[str], str]:
    """Ids of the jobs, and a complaint about those that were refused after others had been submitted."""
    at_most = max_array_size() if any(spec.count > 1 for spec in due) else None
    ids: list[str] = []
    for spec in [part for whole in due for part in split(whole, at_most=at_most)]:
        try:
            ids.append(_patiently(partial(submit, folder, config, spec), seconds=patience_s))
        except ClusterError as error:
            if not ids:
                raise
            return ids, f"submitted {', '.join(ids)}, but no further job: {error}; {_BY_HAND}"
    if ids and config.resources.follow_up:
        try:
            ids.append(_patiently(lambda: submit(folder, config, _follow_up(ids, rows)), seconds=patience_s))
        except ClusterError as error:
            return ids, f"submitted {', '.join(ids)}, but not the follow-up step: {error}; {_BY_HAND}"
    return ids, ""


_BY_HAND = "dead trials will not be replaced by themselves: `hpotune submit` again when the jobs have ended"


def _patiently(call: Callable[[], _T], *, seconds: float, away: Sequence[str] = _AWAY) -> _T:
    """The call's answer; calls again while Slurm's complaint holds one of the words that say it is away."""
    until = time.monotonic() + seconds
    while True:
        try:
            return call()
        except ClusterError as error:
            if not any(word in str(error).lower() for word in away) or time.monotonic() + PAUSE_S > until:
                raise
        time.sleep(PAUSE_S)


def _stopped_by_user(folder: StudyFolder, rows: Sequence[JobRow]) -> str:
    """Why the missing trials are not wanted any more; empty when they are."""
    resume = f"`hpotune submit {folder.path}` goes on"
    if cancelled_mark(folder).exists():
        return f"the study was cancelled, so no further job was submitted; {resume}"
    last = next((job["id"] for job in reversed(recorded_jobs(folder)) if job["kind"] == "worker"), None)
    unfinished = {row.state for row in rows if row.id.split("_")[0] == last and row.state != "COMPLETED"}
    # elements that were cancelled before they started have no line of their own
    if "CANCELLED" in unfinished and unfinished <= {"CANCELLED", "GONE"}:
        return f"job {last} was cancelled, so no further one was submitted; {resume}"
    return ""


def _refuse_to_repeat(folder: StudyFolder) -> None:
    last = next((job["id"] for job in reversed(recorded_jobs(folder)) if job["kind"] == "worker"), None)
    if last is not None and not folder.took_trial(last).exists():
        raise ClusterError(
            f"job {last} ended without taking a trial, so no further one was submitted; see its log in "
            f"{folder.jobs / last}, mend the cause, then `hpotune submit {folder.path}`"
        )


def first_jobs(config: StudyConfig, *, now: datetime) -> list[JobSpec]:
    """What a study without trials or jobs would submit."""
    return next_jobs(config, [], [], now=now)


def _follow_up(ids: Sequence[str], rows: Sequence[JobRow]) -> JobSpec:
    """The step that starts when these jobs and those that still live have ended."""
    others = {row.id.split("_")[0] for row in rows if row.live and row.kind == "worker"}
    return JobSpec(kind="step", count=1, throttle=1, after=tuple(sorted({*ids, *others}, key=int)))
